"""One tiny model, computed by the plain torch runner and by the GPU's runner on a CPU."""

from pathlib import Path

import pytest

from tests.model.conftest import TORCH_LIMITS
from tests.model.gpu.machines import runner_of, with_runner
from workers.model.load import LoadedModel, load


@pytest.fixture(scope="package")
def plain(tiny_folder: Path) -> LoadedModel:
    """The reference: TorchRunner, one launch at a time."""
    return load(str(tiny_folder), device="cpu", limits=TORCH_LIMITS)


@pytest.fixture(scope="package")
def ahead(plain: LoadedModel, tiny_folder: Path) -> LoadedModel:
    """The GPU's runner without a GPU: block tables, padded buckets, one launch ahead; no graphs."""
    return with_runner(plain, runner_of(plain, tiny_folder))
