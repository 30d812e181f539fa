"""The sender: from the end of a job to what a receiver hears, with clocks and answers that the test gives."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection

from storage.accounts import keys
from storage.contract import JobKind
from storage.database.connections import Database
from storage.database.group_commit import Writer
from storage.errors import StorageUnavailable
from storage.jobs import jobs
from storage.network.url_policy import Policy
from storage.settings import StorageSettings
from storage.webhooks import deliveries, endpoints
from storage.webhooks.delivery_queue import Sending
from storage.webhooks.tables import DeliveryStatus, WebhookDelivery
from tests.storage.examples import NOW, after, put_delivery, put_endpoint, put_job
from tests.waiting import wait_until, wait_until_async
from tests.workers.webhooks.receiver import Receiver, answer, receiving
from workers.webhooks.fair_order import MAX_PER_DESTINATION
from workers.webhooks.post import Post, Poster
from workers.webhooks.retry_schedule import SCHEDULE_S
from workers.webhooks.sender import LEASE, Sender
from workers.webhooks.sender_thread import SenderThread
from workers.webhooks.verdict import Answer

OK = Answer(status_code=200)


class Clock:
    """The time, as the test says."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class FakePost:
    """Notes what is posted, and answers as `answer_of` says; hosts in `stuck` answer when they are let go."""

    def __init__(self) -> None:
        self.sent: list[Sending] = []
        self.policies: list[Policy] = []
        self.answer_of: Callable[[Sending], Answer] = lambda sending: OK
        self.stuck: dict[str, asyncio.Event] = {}

    async def __call__(self, sending: Sending, policy: Policy, now: datetime) -> Answer:
        self.sent.append(sending)
        self.policies.append(policy)
        if sending.destination.host in self.stuck:
            await self.stuck[sending.destination.host].wait()
        return self.answer_of(sending)

    def hosts(self) -> list[str]:
        return [sending.destination.host for sending in self.sent]


class House:
    """Rows, and senders on them as processes of their own would have."""

    def __init__(self, database: Database, writer: Writer, settings: StorageSettings) -> None:
        self.database, self.writer, self.settings = database, writer, settings
        self.clock, self.post = Clock(), FakePost()

    def sender(self, post: Post | None = None) -> Sender:
        return Sender(
            self.settings, self.database, self.writer, post or self.post, clock=self.clock, chance=lambda: 0.0
        )

    def write(self, operation: Callable[[Connection], object]) -> None:
        with self.database.begin() as connection:
            operation(connection)

    def deliver(self, host: str, *, owner: str = "alice", number: int = 1) -> None:
        """Put deliveries of one endpoint that are due."""
        with self.database.begin() as connection:
            endpoint = put_endpoint(connection, owner=owner, url=f"https://{host}/hook")
            for _ in range(number):
                put_delivery(connection, endpoint)

    def deliveries(self, owner: str = "alice") -> list[WebhookDelivery]:
        with self.database.connect() as connection:
            return deliveries.list_deliveries(connection, owner, is_newest_first=False, limit=1000)

    def statuses(self, owner: str = "alice") -> set[DeliveryStatus]:
        return {row.status for row in self.deliveries(owner)}


@pytest.fixture
def house(database: Database, database_url: str, writer: Writer) -> House:
    settings = StorageSettings(database_url=database_url, redis_url="unix:///none", webhook_loopback=True)
    return House(database, writer, settings)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


async def _poll(sender: Sender) -> None:
    await sender.poll()
    await sender.finish()


async def test_the_end_of_a_job_is_sent_to_all_who_asked(house: House, receiver: Receiver) -> None:
    with house.database.begin() as c:
        put_endpoint(c, url=receiver.url)
        put_endpoint(c, url=receiver.url, event_types=["response.completed"])
        job_id = put_job(c, kind=JobKind.RESPONSE, webhook={"url": receiver.url, "events": None, "secret": None})
        jobs.cancel(c, job_id, house.clock.now)
    sender = house.sender(Poster(ssl.create_default_context()).post)

    await _poll(sender)
    await _poll(sender)

    assert len(receiver.calls) == 2
    [event_id] = {call.headers["webhook-id"] for call in receiver.calls}
    assert all(call.event["type"] == "response.cancelled" for call in receiver.calls)
    assert all(call.event["data"] == {"id": job_id} for call in receiver.calls)
    rows = house.deliveries()
    assert [(row.status, row.num_attempts, row.event_id) for row in rows] == [("delivered", 1, event_id)] * 2
    with house.database.connect() as c:
        attempts = deliveries.list_attempts(c, [row.id for row in rows])
    assert [(one.status_code, one.answer, one.error) for one in attempts] == [(200, "thanks", None)] * 2


async def test_nothing_to_do_writes_nothing(house: House) -> None:
    sender = house.sender()
    await _poll(sender)  # the first poll also erases what is old
    house.writer.stop()
    await _poll(sender)


async def test_a_failing_receiver_is_tried_by_the_schedule_and_given_up(house: House) -> None:
    house.deliver("example.com")
    house.post.answer_of = lambda sending: Answer(status_code=500, text="no")
    sender = house.sender()

    for number, delay in enumerate(SCHEDULE_S, start=1):
        if delay:
            house.clock.forward(delay - 1)
            await _poll(sender)
            house.clock.forward(1)
        await _poll(sender)
        assert len(house.post.sent) == number

    [row] = house.deliveries()
    assert (row.status, row.num_attempts, row.ended_at) == (DeliveryStatus.DEAD, 10, house.clock.now)
    with house.database.connect() as c:
        attempts = deliveries.list_attempts(c, [row.id])
    assert [one.number for one in attempts] == list(range(1, 11))
    assert {(one.error, one.answer) for one in attempts} == {("The receiver answered 500.", "no")}

    house.write(lambda c: deliveries.redeliver(c, row.id, "alice", house.clock.now))
    house.post.answer_of = lambda sending: OK
    await _poll(sender)
    assert house.statuses() == {DeliveryStatus.DELIVERED}


async def test_a_slow_receiver_delays_no_other(house: House) -> None:
    house.deliver("slow.example", number=200)
    house.deliver("other.example", number=3)
    house.deliver("slow.example", owner="bob", number=2)
    house.post.stuck["slow.example"] = asyncio.Event()
    sender = house.sender()

    await sender.poll()
    await wait_until_async(lambda: house.statuses("alice") == {"pending", "delivered"} and len(house.post.sent) == 9)

    assert house.post.hosts().count("other.example") == 3
    assert house.post.hosts().count("slow.example") == MAX_PER_DESTINATION + 2
    await sender.poll()
    assert len(house.post.sent) == 9
    house.post.stuck["slow.example"].set()
    await sender.finish()
    await _poll(sender)
    assert len(house.post.sent) == 9 + MAX_PER_DESTINATION


async def test_two_senders_send_each_thing_once(house: House) -> None:
    for number in range(10):
        house.deliver(f"h{number}.example", number=4)
    senders = [house.sender() for _ in range(2)]

    async with asyncio.timeout(10):
        while house.statuses() != {DeliveryStatus.DELIVERED}:
            await asyncio.gather(*map(_poll, senders))

    ids = [sending.delivery_id for sending in house.post.sent]
    assert len(ids) == len(set(ids)) == 40


async def test_what_a_killed_sender_held_is_sent_after_its_lease(house: House) -> None:
    house.deliver("example.com")
    house.post.stuck["example.com"] = asyncio.Event()
    killed = house.sender()
    await killed.poll()

    second = FakePost()
    other = house.sender(second)
    house.clock.forward(LEASE.total_seconds() - 1)
    await _poll(other)
    assert second.sent == []
    house.clock.forward(1)
    await _poll(other)

    [sending] = second.sent
    assert (sending.number, sending.event_id) == (2, house.deliveries()[0].event_id)
    house.post.stuck["example.com"].set()
    await killed.finish()
    assert house.statuses() == {DeliveryStatus.DELIVERED}


async def test_events_of_one_job_come_in_their_order(house: House) -> None:
    with house.database.begin() as c:
        endpoint = put_endpoint(c)
        for seconds in (2, 1, 3):
            put_delivery(c, endpoint, job_id="resp_1", type=f"response.{seconds}", created_at=after(seconds))
    fails = iter([Answer(status_code=500), OK, OK, OK])
    house.post.answer_of = lambda sending: next(fails)
    sender = house.sender()

    for _ in range(4):
        await _poll(sender)
        house.clock.forward(5)

    assert [sending.type[-1] for sending in house.post.sent] == ["1", "1", "2", "3"]


async def test_a_receiver_that_is_busy_is_left_alone_and_others_are_not(house: House) -> None:
    house.deliver("busy.example", number=MAX_PER_DESTINATION + 3)
    house.post.answer_of = lambda sending: Answer(status_code=429, retry_after_s=60)
    sender = house.sender()
    await _poll(sender)
    house.post.answer_of = lambda sending: OK
    house.deliver("other.example")

    house.clock.forward(59)
    await _poll(sender)
    assert house.post.hosts() == ["busy.example"] * MAX_PER_DESTINATION + ["other.example"]
    house.clock.forward(1)
    await _poll(sender)
    await _poll(sender)
    assert house.statuses() == {DeliveryStatus.DELIVERED}
    assert len(house.post.sent) == 2 * MAX_PER_DESTINATION + 4


async def test_a_receiver_that_is_gone_gets_no_more_events(house: House) -> None:
    house.deliver("gone.example", number=MAX_PER_DESTINATION + 3)
    house.post.answer_of = lambda sending: Answer(status_code=410)
    sender = house.sender()
    await _poll(sender)
    await _poll(sender)

    assert len(house.post.sent) == MAX_PER_DESTINATION
    assert house.statuses() == {DeliveryStatus.DEAD}
    with house.database.connect() as c:
        [endpoint] = endpoints.list_endpoints(c, "alice")
    assert endpoint.disabled_at is not None


async def test_this_machine_is_a_receiver_only_until_a_key_exists(house: House) -> None:
    sender = house.sender()
    house.deliver("a.example")
    await _poll(sender)
    house.write(lambda c: keys.create(c, "alice", pepper=b"p", now=NOW))
    house.deliver("b.example")
    await _poll(sender)
    assert [policy.allows_loopback for policy in house.post.policies] == [True, False]


async def test_what_is_under_way_when_a_sender_stops_is_given_back(house: House) -> None:
    house.deliver("slow.example")
    house.deliver("fast.example")
    house.post.stuck["slow.example"] = asyncio.Event()
    stopping = asyncio.Event()
    running = asyncio.create_task(house.sender().run(stopping, grace_s=0.01))
    await wait_until_async(lambda: house.statuses() == {"delivered", "pending"})

    stopping.set()
    await asyncio.wait_for(running, 5)

    second = FakePost()
    await _poll(house.sender(second))
    assert [(sending.destination.host, sending.num_failures) for sending in second.sent] == [("slow.example", 0)]


async def test_a_running_sender_empties_a_long_destination_without_waiting_for_its_next_poll(house: House) -> None:
    house.deliver("fast.example", number=15 * MAX_PER_DESTINATION)
    stopping = asyncio.Event()
    running = asyncio.create_task(house.sender().run(stopping, grace_s=1))
    # At a poll every half second it would take seven seconds.
    await wait_until_async(lambda: house.statuses() == {DeliveryStatus.DELIVERED}, 5.0)
    stopping.set()
    await asyncio.wait_for(running, 5)
    assert len(house.post.sent) == 15 * MAX_PER_DESTINATION


async def test_a_fault_of_our_own_is_tried_again_too(house: House) -> None:
    def broken(sending: Sending) -> Answer:
        raise ArithmeticError

    house.deliver("example.com")
    house.post.answer_of = broken
    await _poll(house.sender())
    [row] = house.deliveries()
    assert (row.status, row.next_attempt_at) == (DeliveryStatus.PENDING, after(5))


async def test_a_database_that_goes_away_costs_an_attempt_and_no_delivery(house: House) -> None:
    class Leaving:
        """A writer whose database is there for the claim, and then no more."""

        def __init__(self) -> None:
            self.num_calls = 0

        async def call(self, operation: Callable[[Connection], object]) -> object:
            self.num_calls += 1
            if self.num_calls > 1:
                raise StorageUnavailable("away")
            return await house.writer.call(operation)

    house.deliver("example.com")
    sender = Sender(house.settings, house.database, Leaving(), house.post, clock=house.clock)  # type: ignore[arg-type]
    with pytest.raises(StorageUnavailable):  # of the poll: it also wants to erase
        await sender.poll()
    await sender.finish()

    house.clock.forward(LEASE.total_seconds())
    await _poll(house.sender())
    assert [sending.number for sending in house.post.sent] == [1, 2]
    assert house.statuses() == {DeliveryStatus.DELIVERED}


async def test_what_is_old_is_erased(house: House) -> None:
    house.deliver("example.com")
    await _poll(house.sender())
    house.clock.forward(31 * 86400)
    await _poll(house.sender())
    assert house.deliveries() == []


def test_the_thread_sends_soon_after_the_end_of_a_job(house: House) -> None:
    response: list[object] = []

    async def serve() -> None:
        async with receiving(answer()) as receiver:
            with house.database.begin() as c:
                put_endpoint(c, url=receiver.url)
                jobs.cancel(c, put_job(c), datetime.now(UTC))
            await wait_until_async(lambda: receiver.calls)
            response.extend(receiver.calls)

    thread = SenderThread(house.settings, house.database, house.writer)
    thread.start()
    asyncio.run(serve())
    wait_until(lambda: house.statuses() == {DeliveryStatus.DELIVERED})
    thread.stop(5)
    assert len(response) == 1
    SenderThread(house.settings, house.database, house.writer).stop(1)
