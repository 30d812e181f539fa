"""Whose turn it is: how many more deliveries of each line may go on their way; pure."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from storage.webhooks.delivery_queue import DueLine, Line

# Deliveries under way at once: in all, of one owner, of one owner to one host.
MAX_UNDER_WAY = 128
MAX_OF_OWNER = 32
MAX_OF_LINE = 4

# Of a line: deliveries under way, since when one is due, its number among those that are.
_Place = tuple[int, datetime, int]


def next_turns(due: Sequence[DueLine], under_way: Mapping[Line, int]) -> dict[Line, int]:
    """How many deliveries of each line to begin now.

    Places go one by one to the owner who has the fewest under way, of the owner's lines to the one that has, then to
    the longest overdue: a receiver that is slow, or an owner with a thousand of them, leaves places to others.
    """
    of_owner: Counter[str] = Counter()
    for line, count in under_way.items():
        of_owner[line.owner] += count
    lines_by_owner: dict[str, list[_Place]] = {}
    for number, one in enumerate(due):
        if (of_line := under_way.get(one.line, 0)) < MAX_OF_LINE:
            lines_by_owner.setdefault(one.line.owner, []).append((of_line, one.due_at, number))
    for lines in lines_by_owner.values():
        heapq.heapify(lines)
    # Each owner with the best of its lines. However many wait, only those that get a place are looked at from here.
    owners = [
        (of_owner[owner], lines[0], owner) for owner, lines in lines_by_owner.items() if of_owner[owner] < MAX_OF_OWNER
    ]
    heapq.heapify(owners)
    turns: Counter[Line] = Counter()
    for _ in range(MAX_UNDER_WAY - of_owner.total()):
        if not owners:
            break
        current, (of_line, due_at, number), owner = heapq.heappop(owners)
        turns[due[number].line] += 1
        lines = lines_by_owner[owner]
        heapq.heappop(lines)
        if of_line + 1 < MAX_OF_LINE:
            heapq.heappush(lines, (of_line + 1, due_at, number))
        if lines and current + 1 < MAX_OF_OWNER:
            heapq.heappush(owners, (current + 1, lines[0], owner))
    return dict(turns)
