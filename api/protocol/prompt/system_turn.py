"""System turns: instructions, system and developer messages joined, for templates that accept one at the beginning."""

from collections.abc import Mapping, Sequence
from itertools import takewhile

# `role`, `content` and what else a template reads: `name`; `tool_calls` of the assistant, whose content may then be
# None; `tool_call_id` of a tool's message.
Message = Mapping[str, object]
_ROLES = ("system", "developer")


def is_system(message: Message) -> bool:
    """Whether the message, or the item of a conversation, holds instructions, under either role word."""
    return message.get("role") in _ROLES


def with_one_beginning(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages with all leading system and developer messages joined into one."""
    return _joined(messages, list(takewhile(is_system, messages)), messages)


def with_one_system_turn(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages with all system and developer messages, wherever they stand, joined into one at the beginning."""
    return _joined(messages, [message for message in messages if is_system(message)], messages)


def _joined(messages: Sequence[Message], some: list[Message], whole: Sequence[Message]) -> Sequence[Message]:
    is_arranged = len(some) <= 1 and (not some or is_system(messages[0]))
    if is_arranged:
        return whole
    roles = {message["role"] for message in some}
    role = roles.pop() if len(roles) == 1 else "system"
    chosen = {id(message) for message in some}
    rest = [message for message in messages if id(message) not in chosen]
    return [{"role": role, "content": "\n\n".join(str(message["content"]) for message in some)}, *rest]
