"""Masks of many grammars at once, in llguidance's threads."""

import pytest
from llguidance import LLExecutor

from storage.contract import SamplingParams
from tests.engine.checked import EOS, VOCAB_SIZE
from tests.engine.constrained import GRAMMARS, bits_of, matcher
from workers.constraint.constraint import Constraint
from workers.constraint.mask_buffer import MaskBuffer
from workers.constraint.row_masks import ForcedToken, RowMask


def constraint(place: int, **sampling: object) -> Constraint:
    params = SamplingParams(max_tokens=9, **sampling)  # type: ignore[arg-type]  # by name
    return Constraint(matcher(GRAMMARS[place % len(GRAMMARS)]), params, frozenset({EOS}))


def masks_of(buffer: MaskBuffer, masks: list[RowMask]) -> list[list[int]]:
    buffer.fill(masks)
    words, size = buffer.words(len(masks)).tobytes(), 4 * buffer.num_words
    return [bits_of(words[place * size : (place + 1) * size]) for place in range(len(masks))]


class PanickingExecutor:
    def unsafe_compute_mask_ptr(self, *_: object) -> None:
        raise type("PanicException", (BaseException,), {})("index out of bounds")


@pytest.mark.parametrize("executor", [None, PanickingExecutor()], ids=["threads", "a panic in one of them"])
def test_masks_of_many_grammars_are_those_of_each_alone(executor: object) -> None:
    many: list[RowMask] = [constraint(place, min_tokens=place % 3) for place in range(20)]
    many.insert(7, ForcedToken(9))
    broken = constraint(0)
    broken.take(30)
    many.append(broken)
    new_executor = LLExecutor if executor is None else lambda num_threads: executor
    buffer = MaskBuffer(VOCAB_SIZE, 8, new_executor)  # type: ignore[arg-type]  # a fake

    together = masks_of(buffer, many)

    assert together == [masks_of(MaskBuffer(VOCAB_SIZE), [one])[0] for one in many]
    assert together[7] == [9]
    assert together[-1] == []
