"""Fair scheduling of maintenance duties: one page of work each in turn, within a time budget."""

from collections.abc import Callable, Sequence

# Rows that a duty handles before another has its turn.
PAGE = 500

# Does one page of work; whether more waits.
Duty = Callable[[], bool]


def run_in_turns(
    duties: Sequence[Duty],
    *,
    budget_s: float,
    clock: Callable[[], float],
    on_page: Callable[[Duty], bool] = lambda duty: duty(),
) -> bool:
    """Run every duty once, then those with more work in turn until the budget is spent; whether more waits.

    Every duty has its first page even where another's backlog would fill the budget.

    clock:   seconds
    on_page: runs a page, and decides what its errors come to
    """
    began = clock()
    left = [duty for duty in duties if on_page(duty)]
    while left and clock() - began < budget_s:
        left = [duty for duty in left if on_page(duty)]
    return bool(left)
