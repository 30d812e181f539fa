"""When a model is given up at the start: its replicas fail one after another."""

import pytest

from api.cli.models.failures import ReplicaFailures

REPLICAS = ("worker-a-1", "worker-a-2")


@pytest.fixture
def failures() -> ReplicaFailures:
    return ReplicaFailures()


def test_one_replica_that_fails_gives_no_model_up(failures: ReplicaFailures) -> None:
    for _ in range(5):
        failures.add(REPLICAS[0], "out of memory")

    assert failures.repeated_reason(REPLICAS) is None


def test_a_model_is_given_up_when_all_its_replicas_failed_for_one_reason(failures: ReplicaFailures) -> None:
    failures.add(REPLICAS[0], "not enough memory beside the other")
    failures.add(REPLICAS[0], "no GPU")
    assert failures.repeated_reason(REPLICAS) is None

    failures.add(REPLICAS[1], "no GPU")

    assert failures.repeated_reason(REPLICAS) == "no GPU"


def test_replicas_that_fail_for_different_reasons_are_started_once_more(failures: ReplicaFailures) -> None:
    failures.add(REPLICAS[0], "step 1 of 7")
    failures.add(REPLICAS[1], "step 2 of 7")
    failures.add(REPLICAS[0], "step 3 of 7")
    assert failures.repeated_reason(REPLICAS) is None

    failures.add(REPLICAS[1], "step 4 of 7")

    assert failures.repeated_reason(REPLICAS) == "step 3 of 7"


def test_a_single_replica_fails_at_once(failures: ReplicaFailures) -> None:
    failures.add("worker-b", "no GPU")

    assert failures.repeated_reason(["worker-b"]) == "no GPU"
    assert failures.repeated_reason(REPLICAS) is None


def test_a_model_without_replicas_has_not_failed(failures: ReplicaFailures) -> None:
    assert failures.repeated_reason([]) is None
