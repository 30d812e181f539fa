"""A chunk that wants logits at several positions yields the tokens that its parts would yield one by one."""

from array import array
from pathlib import Path

import pytest

from storage.contract import SamplingParams
from tests.model.conftest import prompt
from tests.model.gpu import machines
from tests.model.test_native import load as read_model
from tests.model.test_native import runner_of
from workers.engine.runner import Chunk, Runner, StepOutput
from workers.model.load import LoadedModel

IDS = prompt(5, 40)
SAMPLING = {
    "greedy": SamplingParams(max_tokens=20, temperature=0.0),
    "noisy": SamplingParams(max_tokens=20, temperature=0.9, top_p=0.8, seed=4, logprobs=2),
    "penalised": SamplingParams(max_tokens=20, temperature=0.7, frequency_penalty=0.5, repetition_penalty=1.3, seed=4),
}


def _chunk(
    ids: tuple[int, ...], start: int, logits_from: int, sampling: SamplingParams, name: str, *, first_block: int = 0
) -> Chunk:
    return Chunk(
        sequence_id=name,
        blocks=array("i", [first_block, first_block + 1]),
        tokens=ids,
        start=start,
        end=len(ids),
        num_prompt=20,
        sampling=sampling,
        logits_from=logits_from,
    )


def _step(runner: Runner, *chunks: Chunk) -> StepOutput:
    runner.launch(list(chunks))
    return runner.collect()


@pytest.fixture(params=["torch", "gpu", "native"])
def runner(request: pytest.FixtureRequest, tiny_folder: Path) -> Runner:
    """Each of the three runners of one model, on a CPU."""
    made: Runner
    if request.param == "native":
        made = runner_of(request.getfixturevalue("library"), read_model(tiny_folder))
    else:
        plain: LoadedModel = request.getfixturevalue("plain")
        made = plain.runner if request.param == "torch" else machines.runner_of(plain, tiny_folder)
    made.reset()
    return made


@pytest.mark.parametrize("kind", SAMPLING)
def test_logits_of_several_positions_are_sampled_as_if_one_by_one(runner: Runner, kind: str) -> None:
    sampling = SAMPLING[kind]
    alone = [
        _step(runner, _chunk(IDS[:end], 0 if end == 29 else end - 1, end - 1, sampling, "one by one"))
        for end in range(29, 41)
    ]
    expected = tuple(token_ids[0] for output in alone for token_ids in output.token_ids if token_ids)

    beside = _chunk(IDS[:30], 0, 29, SAMPLING["greedy"], "beside", first_block=2)
    output = _step(runner, _chunk(IDS, 0, 28, sampling, "together", first_block=4), beside)

    assert len(expected) == 12
    assert output.token_ids[0] == expected
    assert output.token_ids[1] is not None
    assert len(output.token_ids[1]) == 1
    ranked = [one.token_id for one in output.logprobs.get(0, ())]
    assert ranked == ([] if sampling.logprobs is None else list(expected))


def test_a_chunk_that_wants_no_logits_yields_no_token(runner: Runner) -> None:
    output = _step(runner, _chunk(IDS, 0, len(IDS), SAMPLING["greedy"], "prefill"))

    assert output.token_ids == [()]
