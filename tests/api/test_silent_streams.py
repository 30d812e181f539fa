"""Silent streams: the row of their job is looked at, once there is one."""

from collections.abc import Sequence
from typing import cast

import pytest
from redis.asyncio import Redis

from api.streaming.backfill import Backfill
from api.streaming.relay import Relay
from api.streaming.subscription import Subscription
from tests.waiting import wait_until_async


class EmptyBackfill:
    """Finds nothing in any log, and notes whose rows it looks at."""

    reader = "reader"

    def __init__(self) -> None:
        self.num_filled = 0
        self.checked: list[str] = []

    async def fill(self, subscriptions: Sequence[Subscription]) -> None:
        for one in subscriptions:
            one.finish_filling()
        self.num_filled += len(subscriptions)

    async def check(self, subscriptions: Sequence[Subscription]) -> None:
        self.checked += [one.job_id for one in subscriptions]


@pytest.fixture
def backfill() -> EmptyBackfill:
    return EmptyBackfill()


async def test_a_job_that_is_being_accepted_is_not_taken_for_an_erased_one(backfill: EmptyBackfill) -> None:
    relay = Relay(Redis(), cast(Backfill, backfill))
    stored, accepted = relay.subscribe("stored"), relay.subscribe("accepted")
    accepted.is_stored = False
    await wait_until_async(lambda: backfill.num_filled == 2)

    relay._check_silent(stored.touched_at + 60)
    await wait_until_async(lambda: backfill.checked)
    assert backfill.checked == ["stored"]

    accepted.is_stored = True
    relay._check_silent(accepted.touched_at + 60)
    await wait_until_async(lambda: len(backfill.checked) > 1)
    assert backfill.checked[1:] == ["accepted"]
