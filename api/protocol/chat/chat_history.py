"""The history of a chat as messages for its template: each call with its result."""

from collections.abc import Mapping, Sequence

from api.protocol.chat.call_fields import ChatCall, CustomCall
from api.protocol.chat.message import ChatMessage
from api.protocol.prompt.system_turn import Message
from api.protocol.tools.call_arguments import checked_arguments
from storage.errors import InvalidRequest, MissingToolOutput, UnknownCallId

_MISSING = (
    "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. "
    "The following tool_call_ids did not have response messages: {ids}"
)
_MAX_IDS = 500
_ORPHAN = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."


def messages_of_chat(messages: Sequence[ChatMessage]) -> list[Message]:
    """The messages; the results of a message's calls are in the order of the calls, and name the tools.

    raises: MissingToolOutput and UnknownCallId for calls without results and results without calls, InvalidRequest for
            arguments that are no JSON object
    """
    made: list[Message] = []
    turn = _CallTurn(0, {})
    for index, message in enumerate(messages):
        if message.role == "tool":
            turn.answer(index, message)
            continue
        made += turn.results()
        called = enumerate(message.tool_calls or ())
        calls = [_call_of(call, f"messages[{index}].tool_calls[{i}]") for i, call in called]
        turn = _CallTurn(index, {str(call["id"]): _name_of(call) for call in calls})
        if len(turn.names) < len(calls):
            param = f"messages[{index}].tool_calls"
            raise InvalidRequest(f"Invalid '{param}': two calls have the same id.", param=param)
        made.append(_message_of(message, calls))
    return made + turn.results()


class _CallTurn:
    """The calls of one message, and their results so far.

    index: of the message
    names: of the called tools by id
    """

    def __init__(self, index: int, names: Mapping[str, str]) -> None:
        self.names = names
        self._index = index
        self._results: dict[str, Message] = {}

    def answer(self, index: int, message: ChatMessage) -> None:
        call_id = message.tool_call_id or ""
        if call_id not in self.names or call_id in self._results:
            state = "was answered before" if call_id in self._results else "does not exist"
            raise UnknownCallId(f"{_ORPHAN} The call '{call_id}' {state}.", param=f"messages.[{index}].role")
        self._results[call_id] = {
            "role": "tool",
            "tool_call_id": call_id,
            "name": self.names[call_id],
            "content": message.text,
        }

    def results(self) -> list[Message]:
        """All results, in the order of the calls."""
        missing = [call_id for call_id in self.names if call_id not in self._results]
        if missing:
            ids = ", ".join(missing)[:_MAX_IDS]
            raise MissingToolOutput(_MISSING.format(ids=ids), param=f"messages.[{self._index}].role")
        return [self._results[call_id] for call_id in self.names]


def _message_of(message: ChatMessage, calls: Sequence[Message]) -> Message:
    made: dict[str, object] = {"role": message.role, "content": message.text}
    if message.name is not None:
        made["name"] = message.name
    if message.thought:
        made["reasoning_content"] = message.thought
    if calls:
        made["tool_calls"] = calls
    return made


def _call_of(call: ChatCall, param: str) -> Message:
    if isinstance(call, CustomCall):
        return {"id": call.id, "type": "custom", "custom": {"name": call.custom.name, "input": call.custom.input}}
    arguments = checked_arguments(call.function.arguments, f"{param}.function.arguments")
    return {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": arguments}}


def _name_of(call: Message) -> str:
    called = call["custom"] if "custom" in call else call["function"]
    assert isinstance(called, dict)
    return str(called["name"])
