"""Stores why models could not be fetched, so that the API can tell its callers."""

import socket
from collections.abc import Mapping

from api.cli.console import utc_now
from api.cli.open_database import opened
from api.cli.settings import Location
from storage import ids
from storage.fleet import workers


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
