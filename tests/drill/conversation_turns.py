"""Turns of conversations while a worker dies: each is added to its conversation exactly once, or not at all."""

import json
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from tests.drill.faults import kill_worker
from tests.drill.ledger import What
from tests.drill.scene import PATIENCE_S, Incident, Scene
from tests.drill.work import KINDS, body_of
from tests.waiting import wait_until

_NUM_TURNS = 6
_ENDED = ("completed", "incomplete", "failed", "cancelled")

Json = dict[str, Any]  # Any: JSON values


@dataclass(frozen=True, slots=True, kw_only=True)
class _Turn:
    """A turn of a conversation of its own."""

    name: str
    response_id: str
    conversation_id: str
    said: str


def kill_worker_with_turns(scene: Scene) -> Incident:
    """kill -9 of the busier of two workers, while turns of conversations run; then a second turn in each."""
    with httpx2.Client(base_url=f"{scene.stage.root_url}/v1", trust_env=False, timeout=30) as http:
        turns = [_begin(scene, http, number) for number in range(_NUM_TURNS)]
        wait_until(lambda: all(_read(http, turn)["status"] != "queued" for turn in turns), PATIENCE_S, "turns that run")
        incident = kill_worker(scene)
        interrupted = [turn for turn in turns if turn.response_id in (incident.interrupted or {})]
        for turn in turns:
            _end(scene, http, turn)
    return replace(incident, note=f"{len(interrupted)} of {len(turns)} turns interrupted")


def _begin(scene: Scene, http: httpx2.Client, number: int) -> _Turn:
    name, kind = f"{scene.name}-turn-{number}", KINDS["poll"]
    scene.ledger.write(name, What.ASKED, kind="poll", template=number)
    conversation_id = http.post("/conversations", json={}).raise_for_status().json()["id"]
    body = body_of(kind, number, scene.num_tokens, name) | {"conversation": conversation_id, "priority": 0}
    answer = http.post(kind.path, json=body | {"webhook": scene.stage.receiver.target})
    response_id = answer.raise_for_status().json()["id"]
    scene.ledger.write(name, What.ACCEPTED, id=response_id, status=answer.status_code)
    return _Turn(name=name, response_id=response_id, conversation_id=conversation_id, said=body["input"])


def _read(http: httpx2.Client, turn: _Turn) -> Json:
    found: Json = http.get(f"/responses/{turn.response_id}").raise_for_status().json()
    return found


def _end(scene: Scene, http: httpx2.Client, turn: _Turn) -> None:
    """Wait for a turn's end, and compare its conversation with it."""
    wait_until(lambda: _read(http, turn)["status"] in _ENDED, PATIENCE_S, "a turn's end")
    response = _read(http, turn)
    scene.ledger.write(turn.name, What.ENDED, id=turn.response_id, data=json.dumps(response))
    page = http.get(f"/conversations/{turn.conversation_id}/items", params={"order": "asc"}).raise_for_status().json()
    said, *answered = page["data"]
    assert [part["text"] for part in said["content"]] == [turn.said], f"{turn.name}: {said}"
    assert answered == response["output"], f"{turn.name}: {len(answered)} items for {len(response['output'])}"
