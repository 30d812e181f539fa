"""Requests that the tests of this room make, one for each protocol."""

import re
from dataclasses import dataclass

import httpx2

CHAT_MESSAGES = [{"role": "user", "content": "Hi"}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A protocol's create call: its path, its body, and where its jobs are read."""

    path: str
    body: dict[str, object]

    def post(self, http: httpx2.Client, headers: dict[str, str] | None = None, **fields: object) -> httpx2.Response:
        """The answer to the call, with more fields."""
        return http.post(self.path, json={**self.body, **fields}, headers=headers)

    def url_of(self, job_id: str) -> str:
        """Where a job of this protocol is read."""
        return f"{self.path}/{job_id}"


RESPONSE = Call(path="/v1/responses", body={"model": "demo", "input": "Hi"})
CHAT = Call(path="/v1/chat/completions", body={"model": "demo", "messages": CHAT_MESSAGES})
COMPLETION = Call(path="/v1/completions", body={"model": "demo", "prompt": "Hi"})
CALLS = [RESPONSE, CHAT, COMPLETION]
NAMES = ["response", "chat", "completion"]


def without_heartbeats(stream: bytes) -> bytes:
    """The frames of a stream, without the comments that keep it alive."""
    return re.sub(rb"(?m)^:[^\n]*\n", b"", stream)


def frames_of(stream: bytes) -> list[bytes]:
    """The frames of a stream."""
    return [frame + b"\n\n" for frame in without_heartbeats(stream).split(b"\n\n") if frame]
