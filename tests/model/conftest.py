"""Tiny models that the tests of this room share, loaded once."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from storage.contract import SamplingParams
from tests.kernels import compiled_library
from tests.model.tiny import make_tiny
from workers.engine.sequence import SequenceRequest
from workers.model.load import LoadedModel, load
from workers.model.native.library import Library
from workers.model.resources.memory_options import LoadLimits

LIMITS = LoadLimits(max_running=6, max_len=128, max_batch_tokens=64, num_threads=1)
# The same with all left to torch, as on a machine without a compiler.
TORCH_LIMITS = replace(LIMITS, kernel_folder=None)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models are slower on several threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def library_path() -> Path | None:
    """The compiled kernels: before any test loads a model, which would compile them beside other processes."""
    return compiled_library()


@pytest.fixture(scope="session")
def library(library_path: Path | None) -> Library:
    """The kernels."""
    assert library_path is not None
    return Library(library_path)


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3-shaped model's folder."""
    return make_tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session", params=["native", "torch"])
def limits(request: pytest.FixtureRequest) -> LoadLimits:
    """Limits under which the kernels compute, or torch."""
    return LIMITS if request.param == "native" else TORCH_LIMITS


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path, limits: LoadLimits) -> LoadedModel:
    """That model, loaded in float32."""
    return load(str(tiny_folder), device="cpu", limits=limits)


def prompt(salt: int, num_tokens: int) -> tuple[int, ...]:
    """A prompt of ordinary tokens."""
    numbers = random.Random(salt)
    return tuple(numbers.randrange(4, 390) for _ in range(num_tokens))


def greedy(salt: int, num_prompt: int = 10, max_tokens: int = 16) -> SequenceRequest:
    """A request that takes the likeliest token."""
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    return SequenceRequest(sequence_id=f"g{salt}", prompt=prompt(salt, num_prompt), sampling=sampling)


def seeded(salt: int, num_prompt: int = 10, max_tokens: int = 16) -> SequenceRequest:
    """A request that samples, with filters that depend on the salt."""
    sampling = SamplingParams(
        max_tokens=max_tokens,
        temperature=(0.7, 1.0, 1.5)[salt % 3],
        top_p=(1.0, 0.9, 0.6)[salt // 2 % 3],
        top_k=(0, 20)[salt % 2],
        seed=1000 + salt,
    )
    return SequenceRequest(sequence_id=f"s{salt}", prompt=prompt(salt, num_prompt), sampling=sampling)
