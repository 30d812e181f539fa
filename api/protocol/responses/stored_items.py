"""Stored items of Responses: the input items in a job's context, and the conversation that the next turn continues."""

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from api.protocol.responses.request import InputMessage
from storage.contract import JobHeader
from storage.ids import suffix_of

Item = dict[str, object]


class PreviousResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The turn that a request continues by `previous_response_id`. Its instructions do not carry over."""

    input_items: list[Item]
    output_items: list[Item]


def previous_of(header: JobHeader, response: dict[str, object]) -> PreviousResponse:
    """The previous turn, from a job's header and its finished `response` object."""
    return PreviousResponse(input_items=input_items_of(header), output_items=cast(list[Item], response["output"]))


def stored_items(previous: PreviousResponse | None, messages: Sequence[InputMessage]) -> list[Item]:
    """The input items of a job: previous input + previous output + new input. New items get ids when they are read.

    Log probabilities of previous output are not copied.
    """
    history = [] if previous is None else [*previous.input_items, *map(_without_logprobs, previous.output_items)]
    return [*history, *map(_item_of, messages)]


def _without_logprobs(item: Item) -> Item:
    return {**item, "content": [{**part, "logprobs": []} for part in cast(list[Item], item["content"])]}


def _item_of(message: InputMessage) -> Item:
    item: Item = {"type": "message", "role": message.role, "status": message.status or "completed"}
    if message.id is not None:
        item["id"] = message.id
    content = [message.content] if isinstance(message.content, str) else [part.text for part in message.content]
    item["content"] = [_part_of(message.role, text) for text in content]
    return item


def _part_of(role: str, text: str) -> Item:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def input_items_of(header: JobHeader) -> list[Item]:
    """All input items of a response job, oldest first. Each has a unique id that never changes."""
    suffix = suffix_of(header.job_id)
    taken: set[object] = set()
    items: list[Item] = []
    for index, item in enumerate(cast(list[Item], header.context.get("input_items", []))):
        item_id = item.get("id")
        if item_id is None or item_id in taken:
            item_id = f"msg_{suffix}i{index}"
        taken.add(item_id)
        items.append({"id": item_id, **{name: value for name, value in item.items() if name != "id"}})
    return items


def messages_of_items(items: Iterable[Item]) -> list[dict[str, str]]:
    """The items as messages for a chat template."""
    return [{"role": str(item["role"]), "content": _text_of(item)} for item in items]


def _text_of(item: Item) -> str:
    return "\n".join(str(part["text"]) for part in cast(list[Item], item["content"]))
