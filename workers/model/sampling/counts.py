"""Token counts of sequences, kept from step to step so that a step counts its new token only."""

from array import array
from collections import Counter
from collections.abc import Sequence

from workers.model.sampling.sampling_rows import SamplingRequest

# A table that this many steps have not asked for is dropped; a sequence that comes back is counted anew.
_MAX_IDLE_STEPS = 64
# Ids that are compared before a table is believed to belong to a sequence.
_NUM_COMPARED = 8


class TokenCounts:
    """Distinct token ids of one sequence and how often its output holds each.

    ids:    [num_distinct] int32, in order of their first place
    counts: [num_distinct] int32, 0 for an id of the prompt alone
    """

    def __init__(self, tokens: Sequence[int], *, num_prompt: int, with_prompt: bool) -> None:
        begin = 0 if with_prompt else num_prompt
        counts = Counter(tokens[num_prompt:])
        self.ids = array("i", dict.fromkeys(tokens[begin:]))
        self.counts = array("i", [counts[token_id] for token_id in self.ids])
        self.last_step = 0
        self._slot_by_id = {token_id: slot for slot, token_id in enumerate(self.ids)}
        self._num_prompt = num_prompt
        self._with_prompt = with_prompt
        self._num_seen = len(tokens)
        self._tail = list(tokens[-_NUM_COMPARED:])

    def follows(self, tokens: Sequence[int], *, num_prompt: int, with_prompt: bool) -> bool:
        """Whether the table counts these tokens, or all but the last of them."""
        seen = self._num_seen
        return (
            len(tokens) - seen in (0, 1)
            and num_prompt == self._num_prompt
            and with_prompt == self._with_prompt
            and list(tokens[max(0, seen - _NUM_COMPARED) : seen]) == self._tail
        )

    def take(self, tokens: Sequence[int]) -> None:
        """Count the last of the tokens, unless it is counted."""
        if len(tokens) == self._num_seen:
            return
        self._num_seen += 1
        self._tail = [*self._tail[1 - _NUM_COMPARED :], tokens[-1]]
        slot = self._slot_by_id.setdefault(tokens[-1], len(self.ids))
        if slot == len(self.ids):
            self.ids.append(tokens[-1])
            self.counts.append(1)
        else:
            self.counts[slot] += 1


class CountTables:
    """The tables of all sequences that have penalties."""

    def __init__(self) -> None:
        self._table_by_sequence: dict[str, TokenCounts] = {}
        self._step = 0

    def __len__(self) -> int:
        return len(self._table_by_sequence)

    def begin_step(self) -> None:
        """Drop tables that nobody has asked for lately."""
        self._step += 1
        if self._step % _MAX_IDLE_STEPS == 0:
            oldest = self._step - _MAX_IDLE_STEPS
            kept = {key: table for key, table in self._table_by_sequence.items() if table.last_step >= oldest}
            self._table_by_sequence = kept

    def table(self, request: SamplingRequest) -> TokenCounts:
        """Counts of the request's known tokens; those of its prompt only where repetition is penalised."""
        with_prompt = request.sampling.repetition_penalty != 1.0
        tokens, num_prompt = request.tokens, request.num_prompt
        table = self._table_by_sequence.get(request.sequence_id)
        if table is None or not table.follows(tokens, num_prompt=num_prompt, with_prompt=with_prompt):
            table = TokenCounts(tokens, num_prompt=num_prompt, with_prompt=with_prompt)
            self._table_by_sequence[request.sequence_id] = table
        table.take(tokens)
        table.last_step = self._step
        return table

    def forget(self, sequence_id: str) -> None:
        """Drop a sequence's table, if there is one."""
        self._table_by_sequence.pop(sequence_id, None)
