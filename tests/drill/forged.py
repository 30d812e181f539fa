"""A small, faultless ledger and the platform's words about it, for tests that put one lie into it."""

import json
from typing import Any

from tests.drill.judge import Evidence, Hook, Outcome, Replay, Row
from tests.drill.ledger import Entry, What
from tests.drill.work import KINDS, reference_key

TEXT = "A fox ran."
PIECES = ["A fox", " ran."]
REFERENCE = Outcome(text=TEXT, num_prompt=7, num_output=3)
STREAM, CHAT, POLL, BLOCK = "load-stream", "load-chat", "load-poll", "load-block"
IDS = {STREAM: "resp_1", CHAT: "chatcmpl-2", POLL: "resp_3", BLOCK: "resp_4"}
_KINDS = {STREAM: "background stream", CHAT: "chat stream", POLL: "poll", BLOCK: "block"}
_HOOK_TYPES = ("response.completed", "chat.completion.completed", "response.completed", "response.completed")
_USAGE = {"input_tokens": 7, "output_tokens": 3}


def answer(text: str = TEXT, output_tokens: int = 3) -> dict[str, Any]:
    """A response that has ended."""
    return {
        "status": "completed",
        "output": [{"content": [{"text": text}]}],
        "usage": _USAGE | {"output_tokens": output_tokens},
    }


def frames_of_response() -> list[str]:
    """The frames of the response's stream."""
    bodies: list[dict[str, Any]] = [
        {"type": "response.created"},
        *({"type": "response.output_text.delta", "delta": piece} for piece in PIECES),
        {"type": "response.completed", "response": answer()},
    ]
    return [
        f"event: {body['type']}\ndata: {json.dumps(body | {'sequence_number': number})}"
        for number, body in enumerate(bodies)
    ]


def frames_of_chat() -> list[str]:
    """The frames of the chat's stream."""
    deltas: list[tuple[dict[str, str], str | None]] = [({"content": piece}, None) for piece in PIECES]
    deltas.append(({}, "stop"))
    return ["data: " + json.dumps({"choices": [{"delta": delta, "finish_reason": reason}]}) for delta, reason in deltas]


def entries() -> list[Entry]:
    """The ledger: a stream, a chat's stream that was cut once, a job that was polled, a blocking call."""
    found = []
    for at, (name, kind) in enumerate(_KINDS.items()):
        found.append(Entry(t=at, job=name, what=What.ASKED, kind=kind, template=0))
        found.append(Entry(t=at + 0.1, job=name, what=What.ACCEPTED, id=IDS[name], status=200, took_s=0.1))
    for name, frames in ((STREAM, frames_of_response()), (CHAT, frames_of_chat())):
        for seq, frame in enumerate(frames):
            found.append(Entry(t=10 + seq, job=name, what=What.EVENT, seq=seq, data=frame))
            if name == CHAT and seq == 0:
                found.append(Entry(t=10.5, job=name, what=What.CUT, seq=0, data="ReadError"))
        found.append(Entry(t=20, job=name, what=What.ENDED))
    found += [Entry(t=21, job=POLL, what=What.POLLED, data=status) for status in ("queued", "in_progress", "completed")]
    found += [Entry(t=22, job=name, what=What.ENDED, data=json.dumps(answer())) for name in (POLL, BLOCK)]
    return [*found, Entry(t=30, job="", what=What.CLOSED)]


def evidence(**changes: Any) -> Evidence:  # Any: fields of Evidence
    """The faultless case, with some of it replaced."""
    rows = {
        job_id: Row(id=job_id, status="completed", name=name, num_prompt=7, num_output=3, num_token_ids=3)
        for name, job_id in IDS.items()
    }
    frames = {IDS[STREAM]: frames_of_response(), IDS[CHAT]: frames_of_chat()}
    replays = {
        job_id: Replay(frames=frames.get(job_id, ()), text=TEXT, num_ends=1, end_usage=(7, 3)) for job_id in rows
    }
    hooks = {
        job_id: [Hook(event_id=f"evt_{job_id}", type=type_, job_id=job_id, is_signed=True, is_taken=True)]
        for job_id, type_ in zip(rows, _HOOK_TYPES, strict=True)
    }
    reported: dict[str, Any] = {
        "hooks": hooks,
        "entries": entries(),
        "references": {reference_key(KINDS[kind], 0): REFERENCE for kind in _KINDS.values()},
        "rows": rows,
        "replays": replays,
    }
    return Evidence(**reported | changes)
