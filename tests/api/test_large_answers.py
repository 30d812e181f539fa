"""Large answers are built and encoded beside the event loop."""

import json
import threading

import pytest

from api.cpu_bound_work import CpuBoundWork
from api.jobs.replies import MANY_ENTRIES, sized_reply
from storage.contract import Result, TokenEvent


@pytest.mark.parametrize(("num_entries", "is_beside"), [(MANY_ENTRIES, False), (MANY_ENTRIES + 1, True)])
async def test_objects_of_many_entries_are_built_in_a_thread(num_entries: int, is_beside: bool) -> None:
    cpu_bound = CpuBoundWork()
    entries = ((TokenEvent(choice=0, token_ids=(1,), text="x"),),) * num_entries
    here = threading.get_ident()

    for given in (Result(entries=entries), list(entries)):
        answer = await sized_reply(cpu_bound, lambda: {"thread": threading.get_ident()}, given, {"x-job-id": "resp_1"})

        assert (json.loads(bytes(answer.body))["thread"] != here) is is_beside
        assert answer.headers["x-job-id"] == "resp_1"
    cpu_bound.close()
