"""Several tokens of a sequence from one step: forced tokens, or drafts that were accepted."""

import pytest

from tests.engine import invariants
from tests.engine.checked import LIMITS, TEXT, CheckedRunner, expected_output, ids_of, request, run, sequences, text_of
from tests.fakes import FakePart
from workers.engine.engine import Engine
from workers.engine.step_limits import EngineLimits


class SeveralTokens(CheckedRunner):
    """Yields as many tokens at once as it is set to; they are those that would come one by one."""

    def __init__(self, num_tokens: int, limits: EngineLimits = LIMITS) -> None:
        super().__init__(limits=limits)
        self.num_tokens = num_tokens

    def _sampled(self, part: FakePart) -> tuple[int, ...] | None:
        sampled = super()._sampled(part)
        while sampled and len(sampled) < self.num_tokens:
            token_id = self.next_token(part, [*self.read(part), *sampled])
            assert token_id is not None
            sampled += (token_id,)
        return sampled


@pytest.mark.parametrize("num_tokens", [2, 3, 2 * LIMITS.block_size + 1])
def test_several_tokens_a_step_are_the_tokens_that_come_one_by_one(num_tokens: int) -> None:
    runner = SeveralTokens(num_tokens)
    engine = Engine(runner, TEXT, LIMITS)
    requests = sequences(9)

    outputs = run(engine, *requests)

    for one in requests:
        ids, finish = expected_output(one)
        assert ids_of(outputs[one.sequence_id]) == ids
        assert outputs[one.sequence_id][-1].finish == finish
    assert runner.broken == []
    invariants.check(engine)


def test_tokens_after_the_last_are_dropped() -> None:
    ids, _ = expected_output(request("s", seed=2, max_tokens=12))
    text = TEXT._decode(ids)
    engine = Engine(SeveralTokens(8), TEXT, LIMITS)

    outputs = run(engine, request("s", seed=2, max_tokens=12, stop=(text[3:6],), logprobs=1))["s"]

    assert text_of(outputs) == text[:3]
    assert ids_of(outputs) == ids[:6]
    assert [one.token_id for output in outputs for one in output.logprobs] == ids[:6]
