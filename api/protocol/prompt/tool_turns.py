"""Tool turns: calls and results in a chat, arranged as its template takes them.

Before: the arguments of a call are the JSON text that was written, a custom call has its plain text, and the results of
a message's calls follow it in the order of the calls.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from pydantic_core import from_json

from api.protocol.prompt.system_turn import Message
from api.protocol.prompt.tool_declaration import generic_custom_call
from api.protocol.prompt.tool_form import ToolForm, call_id_for

Call = Mapping[str, object]
_JOINT = "\n\n"


def calls_of(message: Message) -> Sequence[Call]:
    """The calls of a message of the assistant."""
    return cast(Sequence[Call], message.get("tool_calls") or ())


def has_tool_turns(messages: Sequence[Message]) -> bool:
    """Whether a chat has calls or results."""
    return any(message["role"] == "tool" or calls_of(message) for message in messages)


def arranged_turns(messages: Sequence[Message], form: ToolForm) -> list[Message]:
    """The chat for a template that shows calls."""
    arranged: list[Message] = []
    ids: dict[object, str] = {}
    num_calls = 0
    for turn in _turns(messages):
        message, results = turn[0], turn[1:]
        calls = calls_of(message)
        named = [(call, *_name_and_arguments(call)) for call in calls]
        made = [_made_call(call, name, text, form, num_calls + i) for i, (call, name, text) in enumerate(named)]
        ids.update({call["id"]: str(one["id"]) for call, one in zip(calls, made, strict=True)})
        num_calls += len(made)
        renamed = [{**result, "tool_call_id": ids.get(result["tool_call_id"], "")} for result in results]
        arranged += _said(message, made, renamed, form) if made else turn
    return arranged


def generic_turns(messages: Sequence[Message]) -> list[Message]:
    """The chat for a template that shows no calls: they are texts of the assistant, and results are texts of a user.

    A user's message behind results is joined to them, since many templates want turns to alternate.
    """
    turns: list[Message] = []
    is_result = False
    for message in messages:
        was_result, is_result = is_result, message["role"] == "tool"
        if is_result:
            text = f"<tool_response>\n{message['content']}\n</tool_response>"
            turns.append(_joined(turns.pop(), text, "\n") if was_result else {"role": "user", "content": text})
        elif was_result and message["role"] == "user":
            turns.append(_joined(turns.pop(), str(message["content"]), _JOINT))
        elif calls := calls_of(message):
            texts = [str(message["content"])] if message["content"] else []
            content = "\n".join([*texts, *map(_generic_call, calls)])
            turns.append({"role": "assistant", "content": content})
        else:
            turns.append(message)
    return turns


def _turns(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Each message with the results that follow it."""
    turn: list[Message] = []
    for message in messages:
        if turn and message["role"] != "tool":
            yield turn
            turn = []
        turn.append(message)
    if turn:
        yield turn


def _said(message: Message, calls: list[Call], results: Sequence[Message], form: ToolForm) -> Iterator[Message]:
    """A message of calls with its results; several messages where the template takes less in one."""
    rest = {name: value for name, value in message.items() if name not in ("content", "tool_calls")}
    text = message["content"]
    if text and not form.has_text_with_calls:
        yield {**rest, "content": text}
        rest, text = {"role": message["role"]}, None
    if form.has_parallel_calls or len(calls) == 1:
        yield {**rest, "content": text or form.empty_content, "tool_calls": calls}
        yield from results
        return
    for call in calls:
        yield {**rest, "content": text or form.empty_content, "tool_calls": [call]}
        yield from (result for result in results if result["tool_call_id"] == call["id"])
        rest, text = {"role": message["role"]}, None


def _made_call(call: Call, name: str, arguments: str, form: ToolForm, index: int) -> Call:
    read = None if form.has_argument_strings else arguments_object(arguments)
    # What is no object, as arguments of a model that were cut off, stays text.
    given = arguments if read is None else read
    call_id = call_id_for(form.id_style, str(call["id"]), name, index)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": given}}


def _name_and_arguments(call: Call) -> tuple[str, str]:
    """The name and the JSON text of a call; a custom one has its text as `input`."""
    custom = cast(Mapping[str, str] | None, call.get("custom"))
    if custom is not None:
        return custom["name"], json.dumps({"input": custom["input"]}, ensure_ascii=False)
    function = cast(Mapping[str, str], call["function"])
    return function["name"], function["arguments"]


def arguments_object(arguments: str) -> dict[str, object] | None:
    """The JSON object that the text of a call's arguments holds; None where it holds none."""
    try:
        # Unlike Python's own reader it bounds the depth, and knows no NaN.
        value = from_json(arguments, allow_inf_nan=False)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _generic_call(call: Call) -> str:
    custom = cast(Mapping[str, str] | None, call.get("custom"))
    if custom is not None:
        return generic_custom_call(custom["name"], custom["input"])
    function = cast(Mapping[str, str], call["function"])
    name = json.dumps(function["name"], ensure_ascii=False)
    return f'<tool_call>\n{{"name": {name}, "arguments": {function["arguments"]}}}\n</tool_call>'


def _joined(message: Message, text: str, joint: str) -> Message:
    return {**message, "content": f"{message['content']}{joint}{text}"}
