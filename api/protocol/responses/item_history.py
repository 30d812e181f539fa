"""The items of a conversation as messages for a chat template: each call with its result."""

from collections.abc import Iterable, Sequence
from typing import cast

from api.protocol.prompt.system_turn import Message
from api.protocol.tools.tool_names import qualified_name
from storage.errors import InvalidRequest, MissingToolOutput, UnknownCallId

Item = dict[str, object]
_CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_NOT_A_MESSAGE = frozenset({"reasoning", *_CALLS, *_OUTPUTS})
_CALL_OF_OUTPUT = dict(zip(_OUTPUTS, _CALLS, strict=True))


def messages_of_items(items: Sequence[Item]) -> list[Message]:
    """The items as messages: calls are in the message of the assistant before them, results behind that message.

    raises: MissingToolOutput and UnknownCallId for calls without results and results without calls, InvalidRequest for
            two calls of one id
    """
    for item in items:
        if item.get("type") in _NOT_A_MESSAGE:
            return _messages_of_turns(items)
    return [{"role": str(item["role"]), "content": text_of_item(item)} for item in items]


def _messages_of_turns(items: Iterable[Item]) -> list[Message]:
    turns: list[_Turn] = []
    # The calls so far, which results may answer, by id.
    calls: dict[str, _Turn] = {}
    is_open = False
    # The thought that belongs to the next message or call of the assistant.
    thought = ""
    for item in items:
        kind = item.get("type")
        if kind == "reasoning":
            thought = "\n".join(filter(None, [thought, text_of_item(item)]))
            is_open = False
            continue
        if kind in _OUTPUTS:
            _answer(item, calls)
            is_open = False
            continue
        if kind not in _CALLS:
            is_open = item["role"] == "assistant"
            if thought and not is_open:
                turns.append(_Turn(_said("", thought)))
            said = (
                _said(text_of_item(item), thought)
                if is_open
                else {"role": str(item["role"]), "content": text_of_item(item)}
            )
            turns.append(_Turn(said))
            thought = ""
            continue
        if not is_open:
            turns.append(_Turn(_said("", thought)))
            is_open, thought = True, ""
        turns[-1].add_call(item)
        calls[str(item["call_id"])] = turns[-1]
    return [message for turn in turns for message in turn.messages()]


def _said(text: str, thought: str) -> Message:
    """A message of the assistant."""
    message: Message = {"role": "assistant", "content": text}
    return {**message, "reasoning_content": thought} if thought else message


def without_old_thoughts(items: Sequence[Item]) -> Sequence[Item]:
    """The items without reasoning before the last message of a user."""
    last = max((index for index, item in enumerate(items) if item.get("role") == "user"), default=0)
    return [item for index, item in enumerate(items) if index > last or item.get("type") != "reasoning"]


def has_open_calls(items: Iterable[Item]) -> list[bool]:
    """For each item, whether a call before it has its result at the item or behind it."""
    waiting: set[object] = set()
    found = []
    for item in items:
        found.append(bool(waiting))
        if item.get("type") in _CALLS:
            waiting.add(item["call_id"])
        elif item.get("type") in _OUTPUTS:
            waiting.discard(item["call_id"])
    return found


def text_of_item(item: Item) -> str:
    """The text of a message or of a result."""
    content = item["output"] if item.get("type") in _OUTPUTS else item["content"]
    if isinstance(content, str):
        return content
    return "\n".join(str(part["text"]) for part in cast(Sequence[Item], content))


class _Turn:
    """A message with its calls and their results."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._calls: dict[str, Item] = {}
        self._results: dict[str, str] = {}

    def add_call(self, item: Item) -> None:
        call_id = str(item["call_id"])
        if call_id in self._calls:
            raise InvalidRequest(f"Two calls have the call_id {call_id}.", param="input")
        self._calls[call_id] = item

    def answer(self, call_id: str, result: Item) -> bool:
        """Whether the call waited for this result, and is of its kind."""
        if call_id in self._results or self._calls[call_id]["type"] != _CALL_OF_OUTPUT[str(result["type"])]:
            return False
        self._results[call_id] = text_of_item(result)
        return True

    def messages(self) -> list[Message]:
        """The message, then the results in the order of the calls."""
        missing = next((call_id for call_id in self._calls if call_id not in self._results), None)
        if missing is not None:
            raise MissingToolOutput(f"No tool output found for function call {missing}.", param="input")
        if not self._calls:
            return [self._message]
        calls = [_call_of(item) for item in self._calls.values()]
        return [{**self._message, "tool_calls": calls}, *map(self._result_of, self._calls.values())]

    def _result_of(self, item: Item) -> Message:
        call_id = str(item["call_id"])
        return {"role": "tool", "tool_call_id": call_id, "name": _name_of(item), "content": self._results[call_id]}


def _answer(item: Item, calls: dict[str, _Turn]) -> None:
    call_id = str(item["call_id"])
    turn = calls.get(call_id)
    if turn is None or not turn.answer(call_id, item):
        output = str(item["type"]).replace("_", " ")
        raise UnknownCallId(f"No tool call found for {output} with call_id {call_id}.", param="input")


def _call_of(item: Item) -> Message:
    name = _name_of(item)
    if item["type"] == "custom_tool_call":
        return {"id": item["call_id"], "type": "custom", "custom": {"name": name, "input": item["input"]}}
    return {"id": item["call_id"], "type": "function", "function": {"name": name, "arguments": item["arguments"]}}


def _name_of(item: Item) -> str:
    return qualified_name(str(item["name"]), cast(str | None, item.get("namespace")))
