"""The masks of all rows of a step in one buffer, those of grammars computed in parallel."""

import math
import os
from array import array
from collections.abc import Callable, Sequence
from functools import partial

from llguidance import LLExecutor

from api.protocol.structured.panics import is_panic
from workers.constraint.constraint import Constraint
from workers.constraint.row_masks import RowMask

# Fewer rows are done sooner than other threads wake up, and with few processors these are busy: on 2 shared ones, 32
# masks of 150k tokens took 1.2 ms one after another and 4 ms in two threads.
_MIN_IN_PARALLEL = 6
_MIN_PROCESSORS = 8
_MAX_THREADS = 16


class MaskBuffer:
    """The masks of one step's rows, side by side, valid until the next `fill`.

    num_words: of each row
    """

    def __init__(
        self,
        vocab_size: int,
        num_processors: int = os.cpu_count() or 1,
        new_executor: Callable[[int], LLExecutor] = LLExecutor,
    ) -> None:
        """new_executor: makes llguidance's threads, so many, when they are first needed"""
        self.num_words = -(-vocab_size // 32)
        self._words = array("I")
        self._min_in_parallel = _MIN_IN_PARALLEL if num_processors >= _MIN_PROCESSORS else math.inf
        self._new_executor = partial(new_executor, min(_MAX_THREADS, num_processors))
        self._executor: LLExecutor | None = None

    def fill(self, masks: Sequence[RowMask]) -> None:
        """Compute the masks; that of place i lies at `address(i)`."""
        if len(self._words) < self.num_words * len(masks):
            self._words = array("I", bytes(self.num_words * len(masks) * self._words.itemsize))
        words = memoryview(self._words)
        constraints = [(place, mask) for place, mask in enumerate(masks) if isinstance(mask, Constraint)]
        are_computed = len(constraints) >= self._min_in_parallel and self._compute(constraints, len(masks))
        for place, mask in enumerate(masks):
            own = words[place * self.num_words : (place + 1) * self.num_words]
            if are_computed and isinstance(mask, Constraint):
                mask.finish(own)
            else:
                mask.fill(own, self.address(place))

    def _compute(self, constraints: Sequence[tuple[int, Constraint]], num_rows: int) -> bool:
        """Compute the masks of grammars in parallel; False where a matcher panicked, nobody knows which."""
        if self._executor is None:
            self._executor = self._new_executor()
        matchers = [(constraint.matcher, place) for place, constraint in constraints]
        try:
            row_bytes = self.num_words * self._words.itemsize
            self._executor.unsafe_compute_mask_ptr(matchers, self.address(0), row_bytes, num_rows)
        except BaseException as error:
            if not is_panic(error):
                raise
            return False
        return True

    def address(self, place: int) -> int:
        """Where a row's mask lies in memory."""
        return self._words.buffer_info()[0] + place * self.num_words * self._words.itemsize

    def words(self, num_rows: int) -> memoryview:
        """The masks of the first rows, [num_rows * num_words] uint32."""
        return memoryview(self._words)[: num_rows * self.num_words]
