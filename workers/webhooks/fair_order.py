"""Fair scheduling of webhook deliveries: how many more of each destination may be sent now; pure."""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from storage.webhooks.delivery_queue import Destination, DueDestination

# Limits of deliveries in flight: in all, for each owner, for each destination (one owner and one host).
MAX_IN_FLIGHT = 128
MAX_PER_OWNER = 32
MAX_PER_DESTINATION = 4

# Of a destination: its deliveries in flight, the time since when one is due, its index among the due ones.
_Rank = tuple[int, datetime, int]


def allocate_slots(due: Sequence[DueDestination], in_flight: Mapping[Destination, int]) -> dict[Destination, int]:
    """How many deliveries of each destination to start now.

    Slots are allocated one by one: to the owner with the fewest in flight, then to that owner's destination with the
    fewest in flight, then to the longest overdue. So a slow receiver, or an owner with a thousand destinations, does
    not take the slots of others.
    """
    of_owner: Counter[str] = Counter()
    for destination, count in in_flight.items():
        of_owner[destination.owner] += count
    ranks_by_owner: dict[str, list[_Rank]] = {}
    for index, one in enumerate(due):
        if (of_destination := in_flight.get(one.destination, 0)) < MAX_PER_DESTINATION:
            ranks_by_owner.setdefault(one.destination.owner, []).append((of_destination, one.due_at, index))
    for ranks in ranks_by_owner.values():
        heapq.heapify(ranks)
    # Each owner with its best destination. From here on the cost grows with the slots, not with what waits.
    owners = [
        (of_owner[owner], ranks[0], owner) for owner, ranks in ranks_by_owner.items() if of_owner[owner] < MAX_PER_OWNER
    ]
    heapq.heapify(owners)
    slots: Counter[Destination] = Counter()
    for _ in range(MAX_IN_FLIGHT - of_owner.total()):
        if not owners:
            break
        current, (of_destination, due_at, index), owner = heapq.heappop(owners)
        slots[due[index].destination] += 1
        ranks = ranks_by_owner[owner]
        heapq.heappop(ranks)
        if of_destination + 1 < MAX_PER_DESTINATION:
            heapq.heappush(ranks, (of_destination + 1, due_at, index))
        if ranks and current + 1 < MAX_PER_OWNER:
            heapq.heappush(owners, (current + 1, ranks[0], owner))
    return dict(slots)
