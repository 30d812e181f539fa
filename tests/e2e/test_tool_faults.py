"""A worker that is killed inside the arguments of a tool call is continued inside them."""

import json
import os
import random
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jsonschema import validate
from openai import OpenAI
from openai.types.responses import Response

from tests.e2e.platform import Platform, running_platform
from tests.plain_http import sdk_client
from tests.waiting import wait_until

ITEM: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 8},
        "amount": {"type": "integer", "minimum": 1, "maximum": 99},
    },
    "required": ["name", "amount"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": ITEM, "minItems": 25, "maxItems": 25}},
    "required": ["items"],
    "additionalProperties": False,
}
# `make drill` kills 30 times.
NUM_KILLS = int(os.environ.get("TOKENPOST_TEST_KILLS", "3"))


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform whose worker may be killed."""
    with running_platform(tmp_path_factory.mktemp("fragile-tools") / "home") as started:
        yield started


def called(client: OpenAI, on_delta: Callable[[int], None] = lambda _number: None) -> Response:
    """The response of a streamed call, whose deltas are counted and add up to its arguments."""
    tools: Any = [{"type": "function", "name": "order", "parameters": SCHEMA, "strict": True}]
    asked: Any = {"model": "demo", "input": "Order apples.", "tools": tools, "tool_choice": "required"}
    asked |= {"parallel_tool_calls": False, "temperature": 0, "background": True}
    numbers: list[int] = []
    deltas: list[str] = []
    with client.responses.stream(**asked) as stream:
        for event in stream:
            numbers.append(event.sequence_number)
            if event.type == "response.function_call_arguments.delta":
                deltas.append(event.delta)
                on_delta(len(deltas))
        final = stream.get_final_response()
    assert numbers == list(range(len(numbers)))
    (call,) = final.output
    assert call.type == "function_call"
    assert "".join(deltas) == call.arguments
    return final


def arguments_of(response: Response) -> str:
    """The arguments of the only call, which fit their schema."""
    (call,) = response.output
    assert call.type == "function_call"
    validate(json.loads(call.arguments), SCHEMA)
    return call.arguments


def test_a_killed_worker_is_continued_inside_the_arguments(fragile: Platform) -> None:
    """The answer is byte for byte the undisturbed one, and its stream has no gap."""
    generator = random.Random(12)
    with sdk_client(fragile.base_url) as client:
        deltas: list[int] = []
        undisturbed = arguments_of(called(client, deltas.append))
        for _ in range(NUM_KILLS):
            moment = generator.randrange(2, len(deltas) - 5)
            [pid] = wait_until(lambda: fragile.pids_of("generation worker"), 60)

            def kill(number: int, moment: int = moment, pid: int = pid) -> None:
                if number == moment:
                    os.kill(pid, signal.SIGKILL)

            disturbed = called(client, kill)

            assert arguments_of(disturbed) == undisturbed
            stored = client.responses.retrieve(disturbed.id)
            assert arguments_of(stored) == undisturbed
            assert stored.output[0].id == disturbed.output[0].id
            wait_until(lambda old=pid: fragile.pids_of("generation worker") not in ([], [old]), 60)  # type: ignore[misc]
