"""The conversation that a request goes on with: its items so far, of which truncation may leave the oldest out."""

from collections.abc import Iterable, Sequence

import msgspec

from api.protocol.responses.item_history import Item
from api.protocol.responses.stored_items import characters_of, truncated_items, without_extras


class ConversationHistory(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation of a request.

    position: its `next_position` when it was read: of the turn that the request makes
    items:    those so far, the oldest first; maybe without the oldest, but for system items
    """

    conversation_id: str
    position: int
    items: list[Item]


def whole_history(newest_first: Iterable[Item]) -> list[Item]:
    """All items, the oldest first, as a prompt needs them."""
    return list(map(without_extras, newest_first))[::-1]


def newest_history(newest_first: Iterable[Item], system_items: Sequence[Item], *, max_characters: int) -> list[Item]:
    """The newest items, the oldest of them first, until they hold so many characters, and all system items.

    system_items: of the whole conversation, the oldest first
    """
    items: list[Item] = []
    num_read = 0
    for item in newest_first:
        items.append(without_extras(item))
        num_read += characters_of(item)
        if num_read > max_characters:
            return truncated_items(items[::-1], system_items)
    return items[::-1]
