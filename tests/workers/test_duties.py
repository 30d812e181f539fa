"""Maintenance duties have turns, a page each, within a time budget."""

from workers.maintenance.duties import run_in_turns


class Backlog:
    """A duty with so many pages of work, each of which takes a second of a fake clock."""

    def __init__(self, clock: "Clock", num_pages: int) -> None:
        self.num_pages = num_pages
        self.num_done = 0
        self._clock = clock

    def __call__(self) -> bool:
        self._clock.now += 1.0
        self.num_done += 1
        return self.num_done < self.num_pages


class Clock:
    """A clock that only duties move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_duty_goes_on_while_its_page_is_full() -> None:
    clock = Clock()
    erasing, idle = Backlog(clock, 20), Backlog(clock, 1)

    has_more = run_in_turns([erasing, idle], budget_s=100.0, clock=clock)

    assert (erasing.num_done, idle.num_done, has_more) == (20, 1, False)


def test_backlogs_share_the_budget_evenly_and_every_duty_has_its_page() -> None:
    clock = Clock()
    duties = [Backlog(clock, 1000), Backlog(clock, 1000), Backlog(clock, 1), Backlog(clock, 1)]

    has_more = run_in_turns(duties, budget_s=24.0, clock=clock)

    assert has_more
    assert [duty.num_done for duty in duties] == [11, 11, 1, 1]


def test_a_budget_that_is_spent_at_once_leaves_a_page_for_every_duty() -> None:
    clock = Clock()
    duties = [Backlog(clock, 1000) for _ in range(5)]

    assert run_in_turns(duties, budget_s=0.5, clock=clock)
    assert [duty.num_done for duty in duties] == [1] * 5
