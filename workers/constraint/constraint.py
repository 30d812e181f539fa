"""The constraint of one sequence: its grammar's matcher, and the rules for tokens that end an output."""

import math
from types import TracebackType

from llguidance import LLMatcher

from api.protocol.structured.panics import is_panic
from storage.contract import SamplingParams
from workers.constraint.row_masks import allow, clear, forbid, is_clear

_PANIC = "the matcher failed"


class Constraint:
    """What one sequence may write next. End tokens are allowed exactly where the grammar accepts an end.

    `stop_token_ids` are end tokens there, and elsewhere what the grammar makes of them. `min_tokens` and `ignore_eos`
    keep end tokens out as long as the grammar allows anything else.

    As a context: a panic of the matcher in it sets `failure` and goes no further.

    matcher: at the next token
    failure: why nothing can follow, "" while something can; a matcher in error would allow the end
    """

    __slots__ = ("_eos_token_ids", "_num_held", "_num_taken", "_stop_token_ids", "failure", "matcher")

    def __init__(self, matcher: LLMatcher, sampling: SamplingParams, eos_token_ids: frozenset[int]) -> None:
        self.failure = ""
        self.matcher = matcher
        self._eos_token_ids = eos_token_ids
        self._stop_token_ids = frozenset(sampling.stop_token_ids) - eos_token_ids
        self._num_held = math.inf if sampling.ignore_eos else sampling.min_tokens
        self._num_taken = 0

    def __enter__(self) -> None:
        """Begin calls of the matcher."""

    def __exit__(self, _kind: object, error: BaseException | None, _trace: TracebackType | None) -> bool:
        """Whether the error was a panic, which is over then."""
        if error is None or not is_panic(error):
            return False
        self._fail(_PANIC)
        return True

    def take(self, token_id: int) -> bool:
        """Advance by an output token; whether it ends the output. Sets `failure` for one that is not allowed."""
        self._num_taken += 1
        is_end = token_id in self._eos_token_ids
        with self:
            if (is_end or token_id in self._stop_token_ids) and self.matcher.is_accepting():
                return True
            if not self.matcher.consume_token(token_id):
                self._fail(self.matcher.get_error())
            # A grammar may also name an end token as its own last one.
            return is_end and not self.failure and self.matcher.is_accepting()
        return False

    def forced_ids(self) -> list[int]:
        """Tokens that must follow, in the tokenizer's own way to write them; none where there is a choice."""
        with self:
            return self.matcher.compute_ff_tokens()
        return []

    def allows(self, token_ids: list[int]) -> bool:
        """Whether all of these may follow, one after another."""
        with self:
            return self.matcher.validate_tokens(token_ids) == len(token_ids)
        return False

    def fill(self, words: memoryview, address: int) -> None:
        """As `RowMask.fill`; no token is allowed after a failure."""
        with self:
            self.matcher.unsafe_compute_mask_ptr(address, words.nbytes)
        self.finish(words)

    def finish(self, words: memoryview) -> None:
        """Complete a mask that the matcher wrote."""
        with self:
            if self.matcher.is_error():
                self._fail(self.matcher.get_error())
            elif self._stop_token_ids or self._num_taken < self._num_held:
                self._edit_ends(words)
        if self.failure:
            clear(words)

    def find_dead_end(self) -> str:
        """Why no token could be sampled, where the grammar is the reason; else ""."""
        with self:
            bits = self.matcher.compute_bitmask()
            if bits == bytes(len(bits)):
                self._fail("no token is left")
        return self.failure

    def _edit_ends(self, words: memoryview) -> None:
        ends = self._eos_token_ids
        if self._stop_token_ids and self.matcher.is_accepting():
            ends = ends | self._stop_token_ids
            allow(words, [*self._stop_token_ids])
        if self._num_taken < self._num_held:
            held = forbid(words, [*ends])
            if is_clear(words):
                allow(words, held)

    def _fail(self, reason: str) -> None:
        self.failure = self.failure or reason[:200] or _PANIC
