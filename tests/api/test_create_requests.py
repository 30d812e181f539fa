"""What this process remembers of calls: who waits, which keys are in use, who was refused."""

import pytest

from api.jobs.callers import Callers
from api.jobs.idempotency_keys_in_flight import IdempotencyKeysInFlight
from api.jobs.recent_refusals import RecentRefusals
from storage.accounts.idempotency import KeyedRequest
from storage.errors import IdempotencyKeyInUse, IdempotencyKeyReused

CALL = KeyedRequest(owner="alice", key="k", body_digest=b"d")


def test_a_job_is_left_when_its_last_caller_goes() -> None:
    callers = Callers()
    for number in (0, 2, 1):
        callers.add("job", number)
    callers.add("other", 0)

    assert [callers.remove("job") for _ in range(3)] == [None, None, 2]
    assert callers.remove("other") == 0


def test_a_key_is_in_use_until_its_call_is_accepted() -> None:
    keys = IdempotencyKeysInFlight()
    with keys.using(CALL):
        with pytest.raises(IdempotencyKeyInUse):
            keys.refuse(CALL)
        with pytest.raises(IdempotencyKeyInUse), keys.using(CALL):
            pass
        with pytest.raises(IdempotencyKeyReused):
            keys.refuse(KeyedRequest(owner="alice", key="k", body_digest=b"o"))
        keys.refuse(KeyedRequest(owner="bob", key="k", body_digest=b"d"))

    keys.refuse(CALL)


def test_a_refusal_stands_for_one_try() -> None:
    refusals = RecentRefusals()
    refusals.note(b"d", 0.0)
    refusals.note(b"d", 1.0)

    assert not refusals.take(b"other", 2.0)
    assert [refusals.take(b"d", 2.0) for _ in range(3)] == [True, True, False]


def test_an_old_refusal_stands_for_none() -> None:
    refusals = RecentRefusals()
    refusals.note(b"d", 0.0)
    refusals.note(b"d", 100.0)

    assert [refusals.take(b"d", 200.0) for _ in range(2)] == [True, False]


@pytest.mark.parametrize("now", [1000.0, 1.0], ids=["old", "young"])
def test_refusals_take_bounded_room(now: float) -> None:
    refusals = RecentRefusals()
    for number in range(30_000):
        refusals.note(number.to_bytes(4), 0.0 if number < 5_000 else now)

    assert refusals.take((29_999).to_bytes(4), now)
    assert len(refusals._times_by_digest) <= 10_000
    assert not refusals.take((0).to_bytes(4), now)


def test_refusals_of_one_call_take_bounded_room() -> None:
    refusals = RecentRefusals()
    for number in range(100_000):
        refusals.note(b"d", number / 1000)

    assert len(refusals._times_by_digest[b"d"]) <= 1000
    refusals.note(b"d", 1000.0)
    assert list(refusals._times_by_digest[b"d"]) == [1000.0]
