"""A thread that calls a function at intervals."""

import threading
from collections.abc import Callable

from tests.waiting import wait_until
from workers.generation.beat import Beat
from workers.periodic_thread import PeriodicThread

# Longer than any of these tests: what is called again did not wait for it.
_LONG_S = 600.0


class _Work:
    """Returns or raises what it was given, one for each call; has no work after the last."""

    def __init__(self, *outcomes: bool | Exception) -> None:
        self._outcomes = list(outcomes)
        self.num_calls = 0

    def __call__(self) -> bool:
        self.num_calls += 1
        outcome = self._outcomes.pop(0) if self._outcomes else False
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def _go_on(errors: list[Exception]) -> Callable[[Exception], bool]:
    return lambda error: errors.append(error) is None


def test_it_works_at_once_and_again_where_work_is_left() -> None:
    work = _Work(True, True, False)
    thread = PeriodicThread("test", work, period_s=_LONG_S, on_error=_go_on([]))

    thread.start()
    wait_until(lambda: work.num_calls == 3)
    thread.stop(10)

    assert work.num_calls == 3
    assert not thread._thread.is_alive()


def test_it_works_periodically() -> None:
    work = _Work()
    thread = PeriodicThread("test", work, period_s=0.001, on_error=_go_on([]))

    thread.start()
    wait_until(lambda: work.num_calls >= 3)
    thread.stop(10)

    assert not thread._thread.is_alive()


def test_its_owner_decides_whether_an_error_ends_it() -> None:
    errors: list[Exception] = []
    broken = ValueError("broken")
    goes_on = PeriodicThread("test", work := _Work(broken, False), period_s=0.001, on_error=_go_on(errors))
    ends = PeriodicThread("test", _Work(broken), period_s=_LONG_S, on_error=lambda _: False)

    goes_on.start()
    ends.start()
    wait_until(lambda: work.num_calls >= 2)
    ends._thread.join(10)

    assert errors == [broken]
    assert not ends._thread.is_alive()
    goes_on.stop(10)


def test_a_beat_retries_what_failed_also_when_it_stops() -> None:
    beaten, retried = threading.Semaphore(0), []
    beat = Beat(0.001, beaten.release, lambda error: None)
    beat.later(lambda: retried.append("first"))
    beat.start()
    assert beaten.acquire(timeout=10)
    assert retried == ["first"]
    beat.stop(10)

    beat.later(lambda: retried.append("last"))
    beat.stop(10)

    assert retried == ["first", "last"]


def test_a_beat_that_breaks_is_fatal() -> None:
    errors: list[BaseException] = []
    broken = ValueError("broken")

    def break_() -> None:
        raise broken

    beat = Beat(_LONG_S, break_, errors.append)
    beat.start()
    wait_until(lambda: errors)
    beat.stop(10)

    assert errors == [broken]
