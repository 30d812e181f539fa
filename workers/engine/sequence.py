"""One prompt and its tokens inside the engine: what is asked, what comes out, and the state between."""

import math
from collections import deque
from collections.abc import Iterable

import msgspec
from llguidance import LLMatcher
from msgspec import structs

from storage.contract import Failure, FinishReason, OutputFormat, SamplingParams
from workers.constraint.constraint import Constraint
from workers.constraint.row_masks import ForcedToken, RowMask
from workers.engine.blocks import BlockTable
from workers.engine.runner import Ranked
from workers.text.stream import TextStream


class SequenceRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine is to run.

    emitted:    output ids that an earlier run already published; they count toward `max_tokens`
    priority:   lower goes first; equal priorities go in order of arrival; an aged one goes first whatever its priority
    cache_salt: only sequences with the same salt share what the cache holds of their prefixes
    output:     what it may write, None for plain text
    matcher:    of the grammar of its output, at the beginning, for this sequence alone; None without one
    """

    sequence_id: str
    prompt: tuple[int, ...]
    sampling: SamplingParams
    emitted: tuple[int, ...] = ()
    priority: int = 0
    cache_salt: str = ""
    output: OutputFormat | None = None
    matcher: LLMatcher | None = None


class SequenceOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What one step yielded for one sequence; the last one carries `finish` or `failure`.

    token_ids:       new ids, the end-of-sequence id included
    text:            text that became certain; the last output flushes what was held back
    logprobs:        one for each of token_ids where they were asked for
    prompt_logprobs: one for each prompt token but the first where they were asked for, on the first output of a
                     sequence without emitted ids
    num_cached:      prompt tokens that were found in the cache, on the first output
    vector:          of an encoder: what it made of the text, little-endian float32; None of other engines
    """

    sequence_id: str
    token_ids: tuple[int, ...]
    text: str
    finish: FinishReason | None = None
    failure: Failure | None = None
    logprobs: tuple[Ranked, ...] = ()
    prompt_logprobs: tuple[Ranked, ...] = ()
    num_cached: int = 0
    vector: bytes | None = None

    @property
    def is_last(self) -> bool:
        """Whether nothing follows for this sequence."""
        return self.finish is not None or self.failure is not None


class Sequence:
    """A sequence in the engine, waiting or running.

    order:           sort key of the waiting queue; the greatest is the first to be preempted
    patience_s:      time that it may still wait before it ages
    ages_at:      when that time is over; of one that waits
    tokens:          prompt and output ids
    max_total:       tokens that it may have at most
    num_computed:    leading positions whose keys and values are in the cache or are computed by a launch
    capacity:        positions that its blocks hold; 0 while it waits
    is_prefilling:       whether it prefills: a prompt, or tokens that are computed again
    is_open:         whether it has yet to end
    had_output:         whether it had an output
    constraint:      what it may write; None for free text
    mask:            of its next token, None where all may be sampled
    unsent:          ids and text that were forced before the next token is sampled, and go out with that
    may_force:       whether tokens may follow that are not sampled
    must_wait:       whether the next token is sampled only when the last one is known, because of a mask or because
                     another one may have to be forced
    num_cached:      positions that it found in the cache
    prompt_logprobs: collected until the first output
    """

    __slots__ = (
        "_ending",
        "_forced",
        "_thinking",
        "ages_at",
        "cache_salt",
        "capacity",
        "constraint",
        "finish",
        "had_output",
        "is_open",
        "is_prefilling",
        "mask",
        "max_total",
        "may_force",
        "must_wait",
        "num_cached",
        "num_computed",
        "num_prompt",
        "order",
        "patience_s",
        "prompt_logprobs",
        "sampling",
        "sequence_id",
        "table",
        "text",
        "tokens",
        "unsent",
    )

    def __init__(
        self,
        request: SequenceRequest,
        text: TextStream,
        *,
        arrival: int,
        patience_s: float,
        eos_token_ids: frozenset[int],
    ) -> None:
        self.sequence_id = request.sequence_id
        self.cache_salt = request.cache_salt
        self.order = (request.priority, arrival)
        self.patience_s = patience_s
        self.ages_at = math.inf
        self.tokens = list(request.prompt)
        self.num_prompt = len(request.prompt)
        self.max_total = self.num_prompt + request.sampling.max_tokens
        self.table = BlockTable()
        self.text = text
        self.finish: FinishReason | None = None
        self.is_open = True
        self.had_output = False
        self.sampling = request.sampling
        if request.emitted:
            self._forget_prompt_logprobs()
        self._ending = _ending_ids(request.sampling, eos_token_ids)
        self.constraint: Constraint | None = None
        if request.matcher is not None:
            self.constraint = Constraint(request.matcher, request.sampling, eos_token_ids)
        self._thinking = None if request.output is None else request.output.thinking
        if self._thinking is not None and self._thinking.max_tokens is None:
            self._thinking = None
        self._forced: deque[int] = deque()
        self.may_force = self.constraint is not None or self._thinking is not None
        self.mask: RowMask | None = None
        self.must_wait = False
        self.prepare_next()
        self.unsent: tuple[tuple[int, ...], str] = (), ""
        self.restart()

    def restart(self) -> None:
        """Nothing of it is in the cache any more."""
        self.num_computed = 0
        self.capacity = 0
        self.is_prefilling = True
        self.num_cached = 0
        self.prompt_logprobs: list[Ranked] = []

    @property
    def priority(self) -> int:
        """Lower goes first."""
        return self.order[0]

    @property
    def is_full(self) -> bool:
        """Whether its blocks do not hold the next position, or, where several tokens came at once, all its tokens."""
        return self.num_computed == self.capacity or (self.is_prefilling and len(self.tokens) > self.capacity)

    @property
    def reads_cache(self) -> bool:
        """Whether it may use what is cached; the log probabilities of a prompt need every position computed."""
        return self.sampling.prompt_logprobs is None

    def accept(self, token_id: int) -> str:
        """Append an output token and decide whether it is the last; text that became certain."""
        self.tokens.append(token_id)
        constraint = self.constraint
        if token_id in self._ending if constraint is None else constraint.take(token_id):
            self.finish = FinishReason.STOP
            return self.text.push(token_id) if token_id in self.text.text_by_marker_id else ""
        text = self.text.push(token_id)
        if self.text.is_stopped:
            self.finish = FinishReason.STOP
        elif len(self.tokens) >= self.max_total:
            self.finish = FinishReason.LENGTH
        return text

    def advance(self, token_ids: Iterable[int]) -> tuple[tuple[int, ...], str]:
        """What goes out now that these tokens are known: ids up to the last one, and text that became certain.

        Tokens that are forced after them go out as well, up to the end of a thought, so that the tokens of one output
        belong to a thought or not; others behind it wait in `unsent`.
        """
        ids, text = self.unsent
        self.unsent = (), ""
        more_ids, more_text, is_cut = self._extend(token_ids)
        ids, text = ids + more_ids, text + more_text
        if is_cut and not self._is_finished():
            later_ids, later_text, _ = self._extend(self.forced_ids())
            if self._is_finished():
                ids, text = ids + later_ids, text + later_text
            else:
                self.unsent = later_ids, later_text
        self.prepare_next()
        return ids, text

    def _extend(self, token_ids: Iterable[int]) -> tuple[tuple[int, ...], str, bool]:
        """Ids, text, and whether more were forced but for the end of a thought."""
        accepted: list[int] = []
        text = ""
        waiting = deque(token_ids)
        is_cut = False
        while waiting and not self._is_finished() and not is_cut:
            was_thinking = self._is_thinking
            accepted.append(waiting.popleft())
            text += self.accept(accepted[-1])
            if self._forced:
                self._forced.popleft()
            is_cut = was_thinking and not self._is_thinking
            if not waiting and not self._is_finished() and not is_cut:
                waiting.extend(self.forced_ids())
        return tuple(accepted), text + self.close() if self._is_finished() else text, is_cut

    def forced_ids(self) -> list[int]:
        """Tokens that follow without being sampled.

        Those of sequences that report log probabilities are sampled, one by one, under a mask that allows them alone;
        what a grammar forces then needs no such mask.
        """
        closing = self._closing_ids()
        if self.sampling.logprobs is not None:
            self._forced.extend(closing)
            return []
        return closing or ([] if self.constraint is None else self.constraint.forced_ids())

    def prepare_next(self) -> None:
        """Set what holds for the next token."""
        self.mask = ForcedToken(self._forced[0]) if self._forced else self.constraint
        self.must_wait = self.mask is not None or self._num_until_limit <= 1

    def _is_finished(self) -> bool:
        return self.finish is not None

    @property
    def _is_thinking(self) -> bool:
        return self.text.thoughts is not None and self.text.thoughts.is_open

    @property
    def _num_until_limit(self) -> float:
        """Tokens after which the end of a thought may have to be forced."""
        if self._thinking is None or self._thinking.max_tokens is None:
            return math.inf
        thoughts = self.text.thoughts
        if thoughts is None or not thoughts.is_open:
            return 1 + self._thinking.max_tokens
        return self._thinking.max_tokens - thoughts.num_in_thought

    def _closing_ids(self) -> list[int]:
        """The rest of the closing marker of a thought that has reached its limit."""
        if self._thinking is None or self._forced or self._num_until_limit > 0:
            return []
        closing = list(self._thinking.closing_ids)
        if self._output_ends_with(closing):
            return []
        begun = next(
            (length for length in range(len(closing) - 1, 0, -1) if self._output_ends_with(closing[:length])), 0
        )
        rest = closing[begun:]
        # A grammar does not allow the marker within a character; that is complete after three more tokens at most.
        return rest if self.constraint is None or self.constraint.allows(rest) else []

    def _output_ends_with(self, token_ids: list[int]) -> bool:
        return self.tokens[max(self.num_prompt, len(self.tokens) - len(token_ids)) :] == token_ids

    def close(self) -> str:
        """Text that was held back until it was certain that nothing follows; "" after a stop string."""
        text = self.text.close()
        if self.text.is_stopped:
            self.finish = FinishReason.STOP
        return text

    def take_prompt_logprobs(self) -> tuple[Ranked, ...]:
        """Note the first output; the prompt's log probabilities, which go with it."""
        logprobs = tuple(self.prompt_logprobs)
        self.had_output = True
        self.prompt_logprobs = []
        self._forget_prompt_logprobs()
        return logprobs

    def _forget_prompt_logprobs(self) -> None:
        """They are reported once; a sequence that is recomputed does not compute them again."""
        if self.sampling.prompt_logprobs is not None:
            self.sampling = structs.replace(self.sampling, prompt_logprobs=None)


def _ending_ids(sampling: SamplingParams, eos_token_ids: frozenset[int]) -> frozenset[int]:
    kept = frozenset() if sampling.ignore_eos else eos_token_ids
    return kept.union(sampling.stop_token_ids) if sampling.stop_token_ids else kept
