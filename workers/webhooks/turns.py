"""Whose turn it is: how many more deliveries of each line may go on their way; pure."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence

from storage.webhook_sending import DueLine, Line

# Deliveries under way at once: in all, of one owner, of one owner to one host.
MAX_UNDER_WAY = 128
MAX_OF_OWNER = 32
MAX_OF_LINE = 4


def next_turns(due: Sequence[DueLine], under_way: Mapping[Line, int]) -> dict[Line, int]:
    """How many deliveries of each line to begin now.

    Places go one by one to the owner who has the fewest under way, of the owner's lines to the one that has, then to
    the longest overdue: a receiver that is slow, or an owner with a thousand of them, leaves places to others.
    """
    of_owner: Counter[str] = Counter()
    for line, count in under_way.items():
        of_owner[line.owner] += count
    room = MAX_UNDER_WAY - of_owner.total()
    turns: Counter[Line] = Counter()
    waiting = [
        (of_owner[one.line.owner], under_way.get(one.line, 0), one.due_at, number, one.line)
        for number, one in enumerate(due)
    ]
    heapq.heapify(waiting)
    while room > 0 and waiting:
        known, of_line, due_at, number, line = heapq.heappop(waiting)
        current = of_owner[line.owner]
        if current >= MAX_OF_OWNER or of_line >= MAX_OF_LINE:
            continue
        if current > known:
            heapq.heappush(waiting, (current, of_line, due_at, number, line))
            continue
        turns[line] += 1
        of_owner[line.owner] += 1
        room -= 1
        heapq.heappush(waiting, (current + 1, of_line + 1, due_at, number, line))
    return dict(turns)
