"""OpenAI's list objects and paging, deleted objects, and the stored messages of a chat."""

from collections.abc import Sequence
from typing import cast

import msgspec

from storage.contract import JobHeader, JobKind
from storage.errors import InvalidRequest

_DELETED = {
    JobKind.RESPONSE: "response",
    JobKind.CHAT: "chat.completion.deleted",
    JobKind.COMPLETION: "text_completion.deleted",
}


def list_object(data: Sequence[dict[str, object]], *, has_more: bool) -> dict[str, object]:
    """A page of a list; `first_id` and `last_id` are those of `data`."""
    return {
        "object": "list",
        "data": list(data),
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The requested page of a list; it begins after the item with the id `after`."""

    limit: int
    after: str | None
    is_newest_first: bool


def page_of(items: Sequence[dict[str, object]], page: Page) -> dict[str, object]:
    """A page of `items`, which are oldest first. Raises InvalidRequest when no item has the id `after`."""
    ordered = list(reversed(items)) if page.is_newest_first else list(items)
    start = 0
    if page.after is not None:
        ids = [item["id"] for item in ordered]
        if page.after not in ids:
            raise InvalidRequest(f"No item of this list has the id '{page.after[:100]}'.", param="after")
        start = ids.index(page.after) + 1
    return list_object(ordered[start : start + page.limit], has_more=start + page.limit < len(ordered))


def messages_of(header: JobHeader) -> list[dict[str, object]]:
    """The input messages of a stored chat completion, oldest first."""
    messages = cast(list[dict[str, object]], header.request.get("messages", []))
    return [_stored_message(f"{header.job_id}-{index}", message) for index, message in enumerate(messages)]


def _stored_message(message_id: str, message: dict[str, object]) -> dict[str, object]:
    content = message.get("content")
    has_parts = isinstance(content, list)
    return {
        "id": message_id,
        "role": message["role"],
        "content": None if has_parts else content,
        "name": message.get("name"),
        "content_parts": content if has_parts else None,
        "refusal": None,
    }


def deleted_object(kind: JobKind, job_id: str) -> dict[str, object]:
    """The answer to a DELETE."""
    return {"id": job_id, "object": _DELETED[kind], "deleted": True}
