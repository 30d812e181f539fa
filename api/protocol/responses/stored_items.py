"""Stored items of Responses: the input items in a job's context, and the turn that a later request continues."""

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from api.protocol.responses.request import InputMessage
from storage.contract import JobHeader
from storage.ids import suffix_of

Item = dict[str, object]


class PreviousResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The turn that a request continues by `previous_response_id`. Its instructions do not carry over.

    input_items:  all of its conversation before its output
    output_items: without log probabilities
    chain_bytes:  stored bytes of the conversation, output included
    """

    job_id: str
    input_items: list[Item]
    output_items: list[Item]
    chain_bytes: int = 0

    @property
    def items(self) -> list[Item]:
        """The whole conversation, oldest item first."""
        return [*self.input_items, *self.output_items]


class StoredTurn(msgspec.Struct, frozen=True, kw_only=True):
    """The stored input of one turn: the job's own input items, and the output of the turn that it continues."""

    job_id: str
    context: dict[str, object]


def previous_of(
    turns: Iterable[StoredTurn], header: JobHeader, response: dict[str, object], chain_bytes: int = 0
) -> PreviousResponse:
    """The previous turn, from its finished `response` object.

    turns:       its chain, the first turn first and itself last
    chain_bytes: stored bytes of its input and of all turns before it
    """
    output_items = [_without_logprobs(item) for item in cast(list[Item], response["output"])]
    return PreviousResponse(
        job_id=header.job_id,
        input_items=input_items_of(turns),
        output_items=output_items,
        chain_bytes=chain_bytes + len(msgspec.json.encode(output_items)),
    )


def context_of(previous: PreviousResponse | None, messages: Sequence[InputMessage]) -> dict[str, object]:
    """The stored context of a turn: its own input, and the output of the turn that it continues.

    Earlier turns are not copied: the chain is put together when it is read. New items get ids when they are read.
    """
    context: dict[str, object] = {} if previous is None else {"previous_output": previous.output_items}
    return {**context, "input_items": [_item_of(message) for message in messages]}


def items_of_context(context: dict[str, object]) -> list[Item]:
    """The items that a turn adds to its chain. A turn of an earlier version of this program holds its whole chain."""
    return [*cast(list[Item], context.get("previous_output", [])), *cast(list[Item], context.get("input_items", []))]


def _without_logprobs(item: Item) -> Item:
    return {**item, "content": [{**part, "logprobs": []} for part in cast(list[Item], item["content"])]}


def _item_of(message: InputMessage) -> Item:
    item: Item = {"type": "message", "role": message.role, "status": message.status or "completed"}
    if message.id is not None:
        item["id"] = message.id
    if "phase" in message.model_fields_set:
        item["phase"] = message.phase
    content = [message.content] if isinstance(message.content, str) else [part.text for part in message.content]
    item["content"] = [_part_of(message.role, text) for text in content]
    return item


def _part_of(role: str, text: str) -> Item:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def input_items_of(turns: Iterable[StoredTurn]) -> list[Item]:
    """All input items of the last turn of a chain, oldest first. Each has a unique id that never changes."""
    taken: set[object] = set()
    items: list[Item] = []
    for turn in turns:
        suffix = suffix_of(turn.job_id)
        for item in items_of_context(turn.context):
            item_id = item.get("id")
            if item_id is None or item_id in taken:
                item_id = f"msg_{suffix}i{len(items)}"
            taken.add(item_id)
            items.append({"id": item_id, **{name: value for name, value in item.items() if name != "id"}})
    return items


def messages_of_items(items: Iterable[Item]) -> list[dict[str, str]]:
    """The items as messages for a chat template."""
    return [{"role": str(item["role"]), "content": _text_of(item)} for item in items]


def _text_of(item: Item) -> str:
    return "\n".join(str(part["text"]) for part in cast(list[Item], item["content"]))
