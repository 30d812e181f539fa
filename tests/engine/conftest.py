"""Fixtures of the engine's tests."""

import logging
from collections.abc import Iterator

import pytest
import structlog

from tests.engine import invariants
from tests.engine.checked import LIMITS, TEXT, CheckedRunner
from workers.engine.engine import Engine


@pytest.fixture(scope="package", autouse=True)
def _silence() -> Iterator[None]:
    """Steps fail by the thousand here, and their tracebacks take longer than all else."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture(params=[0, 1], ids=["in step", "one ahead"])
def runner(request: pytest.FixtureRequest) -> CheckedRunner:
    """A runner of each kind."""
    return CheckedRunner(num_ahead=request.param)


@pytest.fixture
def engine(runner: CheckedRunner) -> Iterator[Engine]:
    """An engine around it, which must be in order in the end."""
    engine = Engine(runner, TEXT, LIMITS)
    yield engine
    invariants.check(engine)
