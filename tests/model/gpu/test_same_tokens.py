"""The GPU's runner says what the plain one says, one launch ahead and in padded batches."""

import random
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import torch

from storage.contract import SamplingParams
from tests.engine.checked import ids_of, run, text_of
from tests.model.conftest import TORCH_LIMITS, greedy, prompt, seeded
from tests.model.gpu.machines import runner_of, with_runner
from tests.model.schemas import grammar_of, random_schema
from tests.model.tiny import make_tiny
from workers.engine.engine import Engine
from workers.engine.runner import Chunk
from workers.engine.sequence import SequenceOutput, SequenceRequest
from workers.model.gpu.runner import GpuRunner
from workers.model.load import LoadedModel, load

KINDS: dict[str, dict[str, object]] = {
    "penalties": {"temperature": 0.0, "repetition_penalty": 1.3, "presence_penalty": 0.6, "frequency_penalty": 0.4},
    "penalties_by_chance": {"frequency_penalty": 0.9, "top_k": 30, "seed": 4},
    "logprobs": {"temperature": 0.0, "logprobs": 3},
    "prompt_logprobs": {"temperature": 0.8, "logprobs": 0, "prompt_logprobs": 2, "seed": 9},
    "bias": {"temperature": 0.0, "logit_bias": ((7, 6.0), (11, 5.5))},
    "min_tokens": {"temperature": 1.4, "min_tokens": 9, "stop_token_ids": tuple(range(100, 160)), "seed": 2},
}


def asked(kind: str, salt: int, num_prompt: int = 12) -> SequenceRequest:
    sampling = SamplingParams(max_tokens=14, **KINDS[kind])  # type: ignore[arg-type]  # as in KINDS
    return SequenceRequest(sequence_id=f"{kind}{salt}", prompt=prompt(salt, num_prompt), sampling=sampling)


REQUESTS = [
    *(make(salt, num_prompt=3 + salt * 7 % 41, max_tokens=20) for salt in range(6) for make in (greedy, seeded)),
    *(asked(kind, salt, 5 + salt * 11) for kind in KINDS for salt in range(3)),
]


def engine_of(loaded: LoadedModel, max_batch_tokens: int = 64) -> Engine:
    return Engine(loaded.runner, loaded.text, replace(loaded.limits, max_batch_tokens=max_batch_tokens))


def assert_same(outputs: dict[str, list[SequenceOutput]], expected: dict[str, list[SequenceOutput]]) -> None:
    """Ids, text and ranked ids are equal; log probabilities but for rounding."""
    for name, want in expected.items():
        got = outputs[name]
        assert ids_of(got) == ids_of(want), name
        assert text_of(got) == text_of(want)
        assert [one.finish for one in got] == [one.finish for one in want]
        for one, other in zip(got, want, strict=True):
            for ranked, reference in zip(
                one.logprobs + one.prompt_logprobs, other.logprobs + other.prompt_logprobs, strict=True
            ):
                assert ranked.token_id == reference.token_id
                assert ranked.logprob == pytest.approx(reference.logprob, abs=1e-3)
                assert len(ranked.top) == len(reference.top)


@pytest.fixture(scope="module")
def expected(plain: LoadedModel) -> dict[str, list[SequenceOutput]]:
    return run(engine_of(plain), *REQUESTS)


@pytest.mark.parametrize("max_batch_tokens", [6, 17, 64])
def test_all_together_in_chunks_of_any_size(
    ahead: LoadedModel, expected: dict[str, list[SequenceOutput]], max_batch_tokens: int
) -> None:
    assert_same(run(engine_of(ahead, max_batch_tokens), *REQUESTS), expected)


def test_one_after_another_among_sequences_that_are_cancelled(
    ahead: LoadedModel, expected: dict[str, list[SequenceOutput]]
) -> None:
    engine = engine_of(ahead)
    numbers = random.Random(2)
    waiting = numbers.sample(REQUESTS, len(REQUESTS))
    outputs: dict[str, list[SequenceOutput]] = {}
    while waiting or engine.has_work:
        if waiting:
            one = waiting.pop()
            engine.add(one)
            engine.add(msgspec.structs.replace(one, sequence_id="x" + one.sequence_id))
        engine.cancel("x" + numbers.choice(REQUESTS).sequence_id)
        for output in engine.step():
            outputs.setdefault(output.sequence_id, []).append(output)

    assert_same(outputs, expected)


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("mistral", {"sliding_window": 24}),
        ("gemma2", {"sliding_window": 24, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 3.0}),
        ("llama", {}),
        ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}),
    ],
)
def test_other_architectures(tmp_path: Path, model_type: str, changes: dict[str, object]) -> None:
    folder = make_tiny(tmp_path / model_type, model_type, **changes)
    plain = load(str(folder), device="cpu", limits=TORCH_LIMITS)
    requests = [make(salt, num_prompt=3 + salt * 9, max_tokens=40) for salt in range(4) for make in (greedy, seeded)]

    outputs = run(engine_of(with_runner(plain, runner_of(plain, folder))), *requests)

    assert_same(outputs, run(engine_of(plain), *requests))


def test_after_a_step_that_failed_with_launches_under_way(
    plain: LoadedModel, tiny_folder: Path, expected: dict[str, list[SequenceOutput]]
) -> None:
    runner = FailingNow(runner_of(plain, tiny_folder))

    outputs = run(Engine(runner, plain.text, plain.limits), *REQUESTS)

    assert_same(outputs, expected)
    assert runner.num_failures > 3


def test_a_step_that_does_not_fit_is_reported_as_such(plain: LoadedModel, tiny_folder: Path) -> None:
    runner = runner_of(plain, tiny_folder)
    network = runner._network
    compute = network.compute
    network.compute = lambda tables, picked, last: (  # type: ignore[method-assign]  # memory that gives out
        compute(tables, picked, last) if tables.shape.num_tokens < 40 else _no_memory()
    )
    requests = [greedy(salt, num_prompt=30) for salt in range(6)]

    outputs = run(Engine(runner, plain.text, plain.limits), *requests)

    assert_same(outputs, run(engine_of(plain), *requests))


def _no_memory() -> torch.Tensor:
    raise torch.OutOfMemoryError


class FailingNow:
    """A runner whose every thirteenth launch raises after it was begun."""

    def __init__(self, runner: GpuRunner) -> None:
        self.num_ahead = runner.num_ahead
        self.num_failures = 0
        self.collect, self.clear, self.reset = runner.collect, runner.clear, runner.reset
        self._launch = runner.launch
        self._num_launches = 0

    def launch(self, chunks: list[Chunk]) -> None:
        self._launch(chunks)
        self._num_launches += 1
        if self._num_launches % 13 == 0:
            self.num_failures += 1
            raise MemoryError


def test_constrained_sequences_run_beside_others_that_are_one_launch_ahead(
    plain: LoadedModel, ahead: LoadedModel
) -> None:
    def constrained() -> list[SequenceRequest]:
        return [
            SequenceRequest(
                sequence_id=f"c{place}",
                prompt=prompt(place, 4 + 7 * place),
                sampling=SamplingParams(max_tokens=60, temperature=1.2, seed=place, logprobs=2 if place % 2 else None),
                matcher=plain.grammars.matcher(grammar_of(random_schema(random.Random(place), depth=1))),
            )
            for place in range(6)
        ]

    expected = run(engine_of(plain), *REQUESTS[:6], *constrained())

    outputs = run(engine_of(ahead), *REQUESTS[:6], *constrained())

    assert_same(outputs, expected)
