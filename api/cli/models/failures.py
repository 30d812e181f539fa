"""Failures of models at the start: when one is given up, and the rows that tell callers why."""

import socket
from collections.abc import Collection, Mapping

from api.cli.console import utc_now
from api.cli.open_database import opened
from api.cli.settings import Location
from storage import ids
from storage.fleet import workers


class ReplicaFailures:
    """Why replicas of models ended before their model was ready.

    A model is given up when every replica of it has ended and the reason repeats: all ended for the same one, or each
    of them ended again when it was restarted. Until then one may become ready: replicas that load beside each other
    may run out of memory where one alone would not.
    """

    def __init__(self) -> None:
        self._reasons: dict[str, list[str]] = {}

    def add(self, replica: str, reason: str) -> None:
        """Note the end of a replica, by its process name."""
        self._reasons.setdefault(replica, []).append(reason)

    def repeated_reason(self, replicas: Collection[str]) -> str | None:
        """The reason to give up the model of these replicas, the last one that was added; None to go on."""
        found = [self._reasons.get(replica, []) for replica in replicas]
        if not found or not all(found):
            return None
        is_same = len({reasons[-1] for reasons in found}) == 1
        return found[0][-1] if is_same or all(len(reasons) > 1 for reasons in found) else None


def store_failures(location: Location, failures: Mapping[str, str]) -> None:
    """Store the reason of each model, as of a worker that ended at its start.

    failures: reasons by the models' names
    """
    if not failures:
        return
    with opened(location) as database, database.begin() as connection:
        for model, reason in failures.items():
            new = workers.NewWorker(
                worker_id=ids.new_id("wrk_"),
                model=model,
                pid=0,
                host=socket.gethostname(),
                device="",
                dtype="",
                slots=0,
            )
            workers.put_failure(connection, new, reason, utc_now())
