"""Thoughts in a chat's history, under the name by which its template reads them."""

from collections.abc import Callable, Mapping, Sequence

from api.protocol.prompt.system_turn import Message

# The name in messages here, and that of gpt-oss.
THOUGHT, THINKING = "reasoning_content", "thinking"
_PROBE = "a thought of the probe"
_QUESTION: Message = {"role": "user", "content": "a question of the probe"}
_CALL: Message = {"id": "call_0", "type": "function", "function": {"name": "probe", "arguments": {}}}
_RESULT: Message = {"role": "tool", "tool_call_id": "call_0", "name": "probe", "content": "a result"}


def thought_name_of(render: Callable[[Sequence[Mapping[str, object]]], str | None]) -> str:
    """The name by which a template reads thoughts; THOUGHT for one that reads none.

    render: renders messages; None where the template refuses them
    """
    for name in (THOUGHT, THINKING):
        # Some show a thought before a call only.
        answer = {"role": "assistant", "content": "an answer of the probe", name: _PROBE}
        caller = {"role": "assistant", "content": "", name: _PROBE, "tool_calls": [_CALL]}
        if any(_PROBE in (render([_QUESTION, *turn]) or "") for turn in ([answer], [caller, _RESULT])):
            return name
    return THOUGHT


def with_named_thoughts(messages: Sequence[Message], name: str) -> Sequence[Message]:
    """The messages with their thoughts under this name."""
    if name == THOUGHT:
        return messages
    return [_renamed(message, name) if THOUGHT in message else message for message in messages]


def _renamed(message: Message, name: str) -> Message:
    thought = message[THOUGHT]
    rest = {key: value for key, value in message.items() if key != THOUGHT}
    if message.get("tool_calls") and message["content"]:
        # gpt-oss takes one of both before a call, as its analysis.
        return {**rest, "content": "", name: f"{thought}\n{message['content']}"}
    return {**rest, name: thought}
