"""Large answers are built and encoded beside the event loop."""

import asyncio
import json
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from api.jobs.replies import MANY_ENTRIES, sized_reply
from api.services import Services
from storage.contract import Result, TokenEvent


class _Threads:
    async def in_thread(self, work: Callable[[], object]) -> object:
        return await asyncio.get_running_loop().run_in_executor(None, work)


@pytest.mark.parametrize(("num_entries", "is_beside"), [(MANY_ENTRIES, False), (MANY_ENTRIES + 1, True)])
async def test_objects_of_many_entries_are_built_in_a_thread(num_entries: int, is_beside: bool) -> None:
    services = cast(Services, SimpleNamespace(catalogue=_Threads()))
    entries = ((TokenEvent(choice=0, token_ids=(1,), text="x"),),) * num_entries
    here = threading.get_ident()

    for given in (Result(entries=entries), list(entries)):
        answer = await sized_reply(services, lambda: {"thread": threading.get_ident()}, given, {"x-job-id": "resp_1"})

        assert (json.loads(bytes(answer.body))["thread"] != here) is is_beside
        assert answer.headers["x-job-id"] == "resp_1"
