"""Objects of conversations and of their items.

Source: OpenAI's types of conversations, `openai` 3.57.0.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import cast

from api.protocol.responses.included import INCLUDED_LOGPROBS, INCLUDED_THOUGHTS
from api.protocol.responses.item_history import Item
from api.protocol.responses.stored_items import AnyItem, fresh_item_id, stored_items_of, without_logprobs


def conversation_object(conversation_id: str, created_at: int, metadata: Mapping[str, str]) -> dict[str, object]:
    """The conversation.

    created_at: Unix time, whole seconds
    """
    return {
        "id": conversation_id,
        "object": "conversation",
        "created_at": created_at,
        "metadata": dict(metadata),
    }


def deleted_conversation(conversation_id: str) -> dict[str, object]:
    """The answer to a DELETE."""
    return {"id": conversation_id, "object": "conversation.deleted", "deleted": True}


def payloads_of(items: Sequence[AnyItem], *, thought_keys: Sequence[str]) -> list[Item]:
    """Items of a request as a conversation stores them, each with an id.

    thought_keys: as in `stored_items_of`
    raises:       InvalidRequest for arguments of a call that are no JSON object, InvalidEncryptedContent
    """
    stored = stored_items_of(items, field="items", thought_keys=thought_keys)
    return [item if "id" in item else {"id": fresh_item_id(item), **item} for item in stored]


def shown_item(item: Item, include: Collection[str] = ()) -> Item:
    """A stored item as a list shows it: log probabilities and signed forms only where they are asked for."""
    if item["type"] == "reasoning" and INCLUDED_THOUGHTS not in include:
        return {name: value for name, value in item.items() if name != "encrypted_content"}
    if item["type"] == "message" and INCLUDED_LOGPROBS not in include:
        return {**item, "content": list(map(without_logprobs, cast(list[Item], item["content"])))}
    return item
