"""What is measured from a ledger: whose answers count, and until when."""

from tests.drill.ledger import Entry, What
from tests.drill.measures import creates_between, probe_succeeded, streams_open_at, streams_went_on


def asked(t: float, job: str, kind: str = "poll") -> Entry:
    return Entry(t=t, job=job, what=What.ASKED, kind=kind, template=0)


def event(t: float, job: str) -> Entry:
    return Entry(t=t, job=job, what=What.EVENT, seq=0, data="")


def refused(t: float, job: str, status: int = 503, retry_after: str | None = "1") -> Entry:
    return Entry(t=t, job=job, what=What.REFUSED, status=status, retry_after=retry_after)


def accepted(t: float, job: str) -> Entry:
    return Entry(t=t, job=job, what=What.ACCEPTED, id="resp_1", status=200)


def test_only_requests_sent_while_a_part_was_away_are_counted() -> None:
    ledger = [
        asked(1.0, "before"),
        accepted(9.0, "before"),
        asked(11.0, "a"),
        refused(12.5, "a"),
        asked(13.0, "b"),
        accepted(13.1, "b"),
        asked(21.0, "after"),
        refused(29.0, "after"),
    ]

    found = creates_between(ledger, 10.0, 20.0)

    assert found is not None
    assert (found.num_refused, found.num_accepted, found.slow_s) == (1, 1, 1.5)
    assert found.is_good
    assert creates_between(ledger, 2.0, 3.0) is None


def test_a_hang_a_bare_refusal_and_a_server_error_are_no_good() -> None:
    def answered(*answer: Entry) -> bool:
        found = creates_between([asked(1.0, "a"), *answer], 0.0, 2.0)
        return found is not None and found.is_good

    assert answered(refused(2.0, "a"))
    assert not answered(refused(9.0, "a"))
    assert not answered(refused(2.0, "a", retry_after=None))
    assert not answered(refused(2.0, "a", status=500))
    assert not answered(accepted(9.0, "a"))


def test_recovery_lasts_until_the_last_open_stream_goes_on() -> None:
    ledger = [asked(0.0, name, "stream") for name in ("a", "b", "done")]
    ledger += [event(1.0, "a"), event(1.0, "b"), event(1.0, "done"), Entry(t=2.0, job="done", what=What.ENDED)]
    ledger += [event(11.0, "a"), event(12.0, "a"), event(13.5, "b")]

    assert streams_open_at(ledger, 10.0) == ["a", "b"]
    assert streams_went_on(ledger, 10.0) == 3.5
    assert streams_went_on(ledger[:-1], 10.0) == float("inf")
    assert streams_went_on(ledger[:3], 10.0) is None


def test_a_probe_that_ends_shows_that_things_go() -> None:
    ledger = [asked(0.0, "p", "probe"), Entry(t=9.0, job="p", what=What.ENDED)]
    ledger += [asked(9.5, "q", "probe"), Entry(t=12.0, job="q", what=What.ENDED)]

    assert probe_succeeded(ledger, 10.0) == 2.0
    assert probe_succeeded(ledger, 13.0) is None
