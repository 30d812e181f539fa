"""The short form of the fault drill: some faults under load, on both databases, and nothing lost, doubled or changed.

`make drill` runs all of them, longer, and measures; here only what came of the jobs is judged.
"""

import random

import pytest

from tests.drill.catalogue import FAULTS
from tests.drill.drill import Load, platform_for, run_fault
from tests.drill.judge import Outcome
from tests.drill.witness import make_references
from tests.drill.work import SHORT_LOAD

LOAD = Load(lines=SHORT_LOAD, num_tokens=160)
BY_NAME = {fault.name: fault for fault in FAULTS}
SHORT = {
    "sqlite": ("kill -9 a worker of two", "kill -9 Redis, file lost", "kill -9 the API"),
    "postgresql": ("PostgreSQL restarts", "kill -9 everything"),
}


@pytest.fixture(scope="module")
def references() -> dict[str, Outcome]:
    """What each request comes to undisturbed: asked of the first platform, and true of every other."""
    return {}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("database", SHORT)
def test_nothing_is_lost_doubled_or_changed(database: str, references: dict[str, Outcome]) -> None:
    faults = [BY_NAME[name] for name in SHORT[database]]
    with platform_for(faults[0], database) as stage:
        references.update(references or make_references(stage, LOAD.num_tokens))

        for fault in faults:
            report = run_fault(stage, fault, references=references, load=LOAD, chance=random.Random(fault.name))

            assert not report.error, f"{fault.name}: {report.error}"
            assert report.violations == [], fault.name
            assert report.num_jobs > len(SHORT_LOAD)
            stage.wait_ready(fault.replicas)
