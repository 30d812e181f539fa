"""A batch while something dies: each of its lines stands in exactly one file, once, and unchanged."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import httpx2

from tests.drill.scene import PATIENCE_S, Incident, Scene
from tests.drill.work import KINDS, NUM_TEMPLATES, Surface, body_of, text_of
from tests.waiting import wait_until

_KIND = KINDS["chat block"]
_NUM_LINES = 12 * NUM_TEMPLATES
_NUM_TOKENS = 60

Json = dict[str, Any]  # Any: JSON values


def beside_a_batch(run: Callable[[Scene], Incident]) -> Callable[[Scene], Incident]:
    """The fault, once a line of a batch has completed and others have not."""

    def beside(scene: Scene) -> Incident:
        batch_id = _create(scene)
        wait_until(lambda: _counts(scene, batch_id)["completed"] > 0, PATIENCE_S, "a line that completed")
        before = _counts(scene, batch_id)["completed"]
        incident = run(scene)
        wait_until(
            lambda: _read(scene, f"/batches/{batch_id}").get("status") == "completed", PATIENCE_S, "a batch's end"
        )
        _check(scene, batch_id)
        note = ", ".join(filter(None, (incident.note, f"{_NUM_LINES - before} of {_NUM_LINES} lines after it")))
        # Lines wait in the back queue until all others have their places again.
        return replace(incident, target_s=None, note=note)

    return beside


def _create(scene: Scene) -> str:
    lines = [
        {
            "custom_id": f"{number}",
            "method": "POST",
            "url": f"/v1{_KIND.path}",
            "body": body_of(_KIND, number % NUM_TEMPLATES, _NUM_TOKENS),
        }
        for number in range(_NUM_LINES)
    ]
    body = {"endpoint": f"/v1{_KIND.path}", "completion_window": "1h", "requests": lines}
    answer = httpx2.post(f"{scene.stage.root_url}/v1/batches", json=body, trust_env=False, timeout=30)
    batch_id: str = answer.raise_for_status().json()["id"]
    return batch_id


def _read(scene: Scene, path: str) -> Json:
    """An object of the API; empty while it is away."""
    try:
        answer = httpx2.get(f"{scene.stage.root_url}/v1{path}", trust_env=False, timeout=5)
    except httpx2.HTTPError:
        return {}
    found: Json = answer.json() if answer.status_code == 200 else {}
    return found


def _counts(scene: Scene, batch_id: str) -> Json:
    counts: Json = _read(scene, f"/batches/{batch_id}").get("request_counts", {"completed": 0})
    return counts


def _check(scene: Scene, batch_id: str) -> None:
    batch = _read(scene, f"/batches/{batch_id}")
    assert batch["request_counts"] == {"total": _NUM_LINES, "completed": _NUM_LINES, "failed": 0}, batch
    assert batch["error_file_id"] is None, batch
    path = f"{scene.stage.root_url}/v1/files/{batch['output_file_id']}/content"
    content = httpx2.get(path, trust_env=False, timeout=30).raise_for_status().text
    answers = [json.loads(line) for line in content.splitlines()]
    assert Counter(one["custom_id"] for one in answers) == {f"{number}": 1 for number in range(_NUM_LINES)}
    texts: dict[int, set[str]] = {}
    for one in answers:
        text = text_of(Surface.CHAT, one["response"]["body"])
        texts.setdefault(int(one["custom_id"]) % NUM_TEMPLATES, set()).add(text)
    assert {template for template, found in texts.items() if len(found) > 1} == set(), "equal lines, unequal answers"
