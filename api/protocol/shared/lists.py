"""OpenAI's list objects and paging."""

from collections.abc import Sequence

import msgspec

from storage.errors import InvalidRequest


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
