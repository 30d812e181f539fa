"""Databases with many jobs in them, all made from a few that the platform itself accepted and ran."""

import json
from dataclasses import dataclass
from typing import Any

from api.settings import ApiSettings
from storage.database.connections import Database
from tests.api.fake_worker import working
from tests.api.server import serving
from tests.size.client import Client
from tests.size.filling import analyse, clone_job
from tests.waiting import wait_until

MODEL = "demo"
PROMPT = "The quick brown fox jumps over the lazy dog while seventeen engineers measure how long it takes. " * 2
ACCEPT = json.dumps({"model": MODEL, "input": PROMPT, "background": True, "max_output_tokens": 64}).encode()
_CHAT = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "store": True, "metadata": {"run": "old"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """The ids of the jobs in a database, the oldest last."""

    queued: list[str]
    responses: list[str]
    chats: list[str]


def settings_of(database_url: str, redis_url: str, **more: Any) -> ApiSettings:  # Any: values of settings
    """Settings of an API without bounds on its queue, which refreshes nothing while a test runs."""
    no_bounds = {"max_queued_per_model": 0, "max_queued_per_owner": 0}
    return ApiSettings(
        database_url=database_url, redis_url=redis_url, pepper="a pepper of a size test", **no_bounds, **more
    )


def fill(
    database_url: str,
    redis_url: str,
    *,
    stored: int,
    queued: int,
    **settings: Any,  # Any: values of settings
) -> Stock:
    """Run a chat and a response, leave one queued, and copy them: half of the stored jobs are chats.

    settings: of the API that accepts the first ones
    """
    response, chat, waiting = _templates(settings_of(database_url, redis_url, **settings))
    database = Database(database_url, answer_within_s=None)
    try:
        stock = Stock(
            responses=clone_job(database, response, stored // 2),
            chats=clone_job(database, chat, stored // 2),
            queued=clone_job(database, waiting, queued),
        )
        analyse(database)
    finally:
        database.dispose()
    return stock


def _templates(settings: ApiSettings) -> tuple[str, str, str]:
    """Ids of an ended response, an ended chat and a queued response."""
    with (
        working(settings.database_url, settings.redis_url) as worker,
        serving(settings) as server,
        Client(server.port) as client,
    ):
        response = client.post("/v1/responses", ACCEPT).json["id"]
        wait_until(lambda: client.get(f"/v1/responses/{response}").json["status"] == "completed", 20)
        chat = client.post("/v1/chat/completions", json.dumps(_CHAT).encode()).json["id"]
        worker.die()
        queued = client.post("/v1/responses", ACCEPT).json["id"]
    return response, chat, queued
