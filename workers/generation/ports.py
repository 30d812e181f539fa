"""Where a worker's jobs go: the parts that a dispatcher sends them to, and the tickets that it answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from storage.broker.event_log import Tail
from storage.contract import JobSpec
from storage.database.group_commit import Writer
from workers.generation.engine_thread import EngineThread
from workers.publishing.publisher import Publisher


class Ticket(Protocol):
    """A queue message that waits for its answer; answered on the hub's thread, once."""

    def acknowledge(self) -> None:
        """The message is done with."""

    def give_back(self) -> None:
        """The message goes back to its queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Road:
    """Where the dispatcher sends things.

    writer:   the database
    on_hub:   runs a call on the hub's thread, soon; the only place where tickets are answered
    later:    runs a call after a pause, for what failed because the database is away
    tails:    where each job's log ends
    drop_log: forgets an erased job's log; may raise RedisError
    read_spec: reads a large spec, which its claim left out, and calls back with it; with None for an erased job
    """

    writer: Writer
    engine: EngineThread
    publisher: Publisher
    on_hub: Callable[[Callable[[], None]], None]
    later: Callable[[Callable[[], None]], None]
    tails: Callable[[list[str]], dict[str, Tail | None]]
    drop_log: Callable[[str], None]
    read_spec: Callable[[str, Callable[[JobSpec | None], None]], None]
