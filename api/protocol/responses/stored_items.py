"""Stored items of Responses: the input items in a job's context, and the turn that a later request continues."""

from collections.abc import Iterable, Sequence
from typing import cast

import msgspec

from api.protocol.prompt.system_turn import is_system
from api.protocol.prompt.token_budget import CHARACTERS_PER_TOKEN
from api.protocol.responses.input_items import CallOutput, CustomCallItem, FunctionCallItem, InputMessage, ReasoningItem
from api.protocol.responses.item_history import Item, has_open_calls, text_of_item
from api.protocol.thinking.signed_thoughts import read_thought
from api.protocol.tools.call_arguments import checked_arguments
from storage.contract import JobHeader
from storage.ids import new_id, suffix_of
from storage.model_manifest import GenerationDefaults

AnyItem = InputMessage | ReasoningItem | FunctionCallItem | CustomCallItem | CallOutput
# In a turn's context: the system and developer messages of the turns before it.
_SYSTEM_ITEMS = "system_items"
# The sampling parameters that the object shows, where the model has defaults of its own.
_GENERATION_DEFAULTS = "generation_defaults"
_ECHOED = ("temperature", "top_p")
_ID_PREFIXES = {
    "message": "msg_",
    "reasoning": "rs_",
    "function_call": "fc_",
    "custom_tool_call": "ctc_",
    "function_call_output": "fco_",
    "custom_tool_call_output": "ctco_",
}


class PreviousResponse(msgspec.Struct, frozen=True, kw_only=True):
    """The turn that a request continues by `previous_response_id`. Its instructions do not carry over.

    input_items:  its conversation before its output; maybe without the oldest turns, but for their system items
    output_items: without log probabilities
    system_items: the system and developer messages of its whole conversation
    chain_bytes:  stored bytes of the conversation, output and system items included
    """

    job_id: str
    input_items: list[Item]
    output_items: list[Item]
    system_items: list[Item] = []
    chain_bytes: int = 0


class StoredTurn(msgspec.Struct, frozen=True, kw_only=True):
    """The stored input of one turn: the job's own input items, and the output of the turn that it continues."""

    job_id: str
    context: dict[str, object]


def newest_turns(newest_first: Iterable[StoredTurn], *, max_characters: int) -> tuple[list[StoredTurn], bool]:
    """The newest turns of a chain, the oldest of them first, until they hold so many characters; whether they are all.

    The newest turn has to hold the system items of those that are left out. One of an earlier version of this program
    does not: then all are returned.
    """
    turns: list[StoredTurn] = []
    num_characters = 0
    for turn in newest_first:
        turns.append(turn)
        num_characters += sum(map(characters_of, items_of_context(turn.context)))
        if num_characters > max_characters and _SYSTEM_ITEMS in turns[0].context:
            return turns[::-1], False
    return turns[::-1], True


def previous_of(
    turns: Sequence[StoredTurn],
    header: JobHeader,
    response: dict[str, object],
    chain_bytes: int = 0,
    *,
    is_whole: bool = True,
) -> PreviousResponse:
    """The previous turn, from its finished `response` object.

    turns:       its chain, the first turn first and itself last
    chain_bytes: stored bytes of its input and of all turns before it
    is_whole:    whether the chain has no turns before these
    """
    output_items = [without_extras(item) for item in cast(list[Item], response["output"])]
    items = input_items_of(turns)
    system_items = list(filter(is_system, items))
    if not is_whole:
        system_items = _system_items_after(turns[-1])
        items = truncated_items(items, system_items)
    return PreviousResponse(
        job_id=header.job_id,
        input_items=items,
        output_items=output_items,
        system_items=system_items,
        chain_bytes=chain_bytes + len(msgspec.json.encode([output_items, system_items])),
    )


def truncated_items(items: Sequence[Item], system_items: Sequence[Item]) -> list[Item]:
    """The end of a conversation as truncation leaves it: all of its system items, the rest from a user's message on.

    The message is not one between a call and its result.

    system_items: of the whole conversation, those among `items` last
    """
    num_before = len(system_items) - sum(map(is_system, items))
    is_open = has_open_calls(items)
    starts = (index for index, item in enumerate(items) if item.get("role") == "user" and not is_open[index])
    start = next(starts, 0)
    rest = [item for index, item in enumerate(items) if index >= start or is_system(item)]
    return [*system_items[:num_before], *rest]


def _system_items_after(turn: StoredTurn) -> list[Item]:
    """The system items of a turn and of all turns before it."""
    return [*cast(list[Item], turn.context[_SYSTEM_ITEMS]), *filter(is_system, items_of_context(turn.context))]


def context_of(
    previous: PreviousResponse | None, new: str | Sequence[AnyItem] | None, *, thought_key: str | None = None
) -> dict[str, object]:
    """The stored context of a turn: its own input, the output of the turn that it continues, and all system items.

    Other items of earlier turns are not copied: the chain is put together when it is read. System items are, since
    truncation keeps them and must not read the whole chain for them. New items get ids when they are read.

    thought_key: of the signed thoughts that the input may hold; without one they are refused
    raises:      InvalidRequest for arguments of a call that are no JSON object, InvalidEncryptedContent
    """
    items = () if new is None or isinstance(new, str) else new
    keys = () if thought_key is None else (thought_key,)
    input_items = (
        [_user_item(new)] if isinstance(new, str) else stored_items_of(items, field="input", thought_keys=keys)
    )
    if previous is None:
        return {"input_items": input_items}
    system_items = [{name: value for name, value in item.items() if name != "id"} for item in previous.system_items]
    return {"previous_output": previous.output_items, _SYSTEM_ITEMS: system_items, "input_items": input_items}


def stored_items_of(items: Sequence[AnyItem], *, field: str, thought_keys: Sequence[str]) -> list[Item]:
    """The items as they are stored; those that came without an id have none yet.

    field:       of the request, in which they are
    thought_keys: of the signed thoughts that they may hold; without one they are refused
    """
    return [_item_of(f"{field}[{index}]", item, thought_keys) for index, item in enumerate(items)]


def fresh_item_id(item: Item) -> str:
    """A new id for an item that came without one."""
    return new_id(_ID_PREFIXES[str(item["type"])])


def echoed_defaults(defaults: GenerationDefaults) -> dict[str, object]:
    """What the context keeps of a model's defaults: they may be others when the object is made again."""
    named = {name: value for name in _ECHOED if (value := getattr(defaults, name)) is not None}
    return {_GENERATION_DEFAULTS: named} if named else {}


def default_of(header: JobHeader, name: str) -> float:
    """The temperature or top_p of a request that does not name it."""
    return cast(dict[str, float], header.context.get(_GENERATION_DEFAULTS, {})).get(name, 1.0)


def items_of_context(context: dict[str, object]) -> list[Item]:
    """The items that a turn adds to its chain. A turn of an earlier version of this program holds its whole chain."""
    return [*cast(list[Item], context.get("previous_output", [])), *cast(list[Item], context.get("input_items", []))]


def without_extras(item: Item) -> Item:
    """An item as part of a later prompt, which needs neither log probabilities nor signed forms."""
    if item["type"] != "message":
        return {name: value for name, value in item.items() if name != "encrypted_content"}
    return {**item, "content": list(map(without_logprobs, cast(list[Item], item["content"])))}


def without_logprobs(part: Item) -> Item:
    """A part of a message without its log probabilities."""
    return {**part, "logprobs": []} if part.get("logprobs") else part


def _user_item(text: str) -> Item:
    return {"type": "message", "role": "user", "status": "completed", "content": [_part_of("user", text)]}


def _item_of(param: str, item: AnyItem, thought_keys: Sequence[str]) -> Item:
    """The item as it is stored; its id, where it has one, is its own.

    param: its place in the request
    """
    match item:
        case InputMessage():
            stored = _message_item(item)
        case ReasoningItem():
            stored = _reasoning_item(param, item, thought_keys)
        case _:
            stored = _call_item(param, item)
    return stored if item.id is None else {"id": item.id, **stored}


def _message_item(message: InputMessage) -> Item:
    item: Item = {"type": "message", "role": message.role, "status": message.status or "completed"}
    if "phase" in message.model_fields_set:
        item["phase"] = message.phase
    content = [message.content] if isinstance(message.content, str) else [part.text for part in message.content]
    item["content"] = [_part_of(message.role, text) for text in content]
    return item


def _reasoning_item(param: str, item: ReasoningItem, thought_keys: Sequence[str]) -> Item:
    """The item with its text, which may come in its signed form only; the summary stands for what has neither."""
    parts = item.content or item.summary or ()
    texts = [part.text for part in parts]
    if item.encrypted_content is not None:
        texts = [read_thought(item.encrypted_content, thought_keys, param=f"{param}.encrypted_content")]
    content = [{"type": "reasoning_text", "text": text} for text in texts]
    return {"type": "reasoning", "summary": [], "content": content, "status": item.status or "completed"}


def _call_item(param: str, item: FunctionCallItem | CustomCallItem | CallOutput) -> Item:
    status = item.status or "completed"
    if isinstance(item, CallOutput):
        parts = item.output if isinstance(item.output, str) else [_part_of("tool", part.text) for part in item.output]
        return {"type": item.type, "call_id": item.call_id, "output": parts, "status": status}
    named: Item = {"type": item.type, "call_id": item.call_id, "name": item.name}
    if item.namespace is not None:
        named["namespace"] = item.namespace
    if isinstance(item, CustomCallItem):
        return {**named, "input": item.input, "status": status}
    return {**named, "arguments": checked_arguments(item.arguments, f"{param}.arguments"), "status": status}


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
                item_id = f"{_ID_PREFIXES[str(item['type'])]}{suffix}i{len(items)}"
            taken.add(item_id)
            items.append({"id": item_id, **{name: value for name, value in item.items() if name != "id"}})
    return items


def characters_of(item: Item) -> int:
    """Characters that stand for at least as much of a prompt as the item: its role takes a token, too."""
    if "content" in item or "output" in item:
        return CHARACTERS_PER_TOKEN + len(text_of_item(item))
    return CHARACTERS_PER_TOKEN + len(str(item["name"])) + len(str(item.get("arguments") or item.get("input")))
