"""One prompt and its tokens inside the engine: what is asked, what comes out, and the state between."""

import msgspec

from storage.contract import Failure, FinishReason, SamplingParams
from workers.text.stream import TextStream


class SequenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is to run.

    emitted:  output ids that an earlier run already published; they count toward `max_tokens`
    priority: lower goes first; equal priorities go in order of arrival
    """

    sequence_id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    emitted: tuple[int, ...] = ()
    priority: int = 0


class SequenceOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What one step yielded for one sequence; the last one carries `finish` or `failure`.

    token_ids: new ids, the end-of-sequence id included
    text:      text that became certain; the last output flushes what was held back
    """

    sequence_id: str
    token_ids: tuple[int, ...]
    text: str
    finish: FinishReason | None = None
    failure: Failure | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows for this sequence."""
        return self.finish is not None or self.failure is not None


class Sequence:
    """A sequence in the engine, waiting or running.

    tokens:       prompt and output ids
    num_computed: leading tokens whose keys and values lie in the cache; every step closes the gap to `tokens`,
                  be it a prompt, a resumed output or the token drawn last
    row:          place in the cache, None while it waits
    """

    __slots__ = (
        "_eos_token_ids",
        "arrival",
        "finish",
        "num_computed",
        "num_prompt",
        "priority",
        "row",
        "sampling",
        "sequence_id",
        "text",
        "tokens",
    )

    def __init__(
        self, request: SequenceRequest, text: TextStream, *, arrival: int, eos_token_ids: frozenset[int]
    ) -> None:
        self.sequence_id = request.sequence_id
        self.sampling = request.sampling
        self.priority = request.priority
        self.arrival = arrival
        self.tokens = list(request.prompt)
        self.num_prompt = len(request.prompt)
        self.num_computed = 0
        self.row: int | None = None
        self.text = text
        self.finish: FinishReason | None = None
        self._eos_token_ids = eos_token_ids

    @property
    def order(self) -> tuple[int, int]:
        """Sort key of the waiting line."""
        return self.priority, self.arrival

    @property
    def num_remaining(self) -> int:
        """Tokens whose keys and values are still to be computed, at least one until the sequence ends."""
        return len(self.tokens) - self.num_computed

    @property
    def num_output(self) -> int:
        """Tokens emitted so far, earlier runs included."""
        return len(self.tokens) - self.num_prompt

    def accept(self, token_id: int) -> str:
        """Append an output token and decide whether it is the last; text that became certain."""
        self.tokens.append(token_id)
        if token_id in self._eos_token_ids:
            self.finish = FinishReason.STOP
            return ""
        text = self.text.push(token_id)
        if self.text.is_stopped:
            self.finish = FinishReason.STOP
        elif self.num_output >= self.sampling.max_tokens:
            self.finish = FinishReason.LENGTH
        return text

    def close(self) -> str:
        """Text that was held back until it was certain that nothing follows; "" after a stop string."""
        text = self.text.close()
        if self.text.is_stopped:
            self.finish = FinishReason.STOP
        return text
