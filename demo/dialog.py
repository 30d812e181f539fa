"""Dialogs of the demo corpus: messages with thoughts and tool calls, and their text as the chat template renders it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

MESSAGE_END = "<|im_end|>"
THINK, THINK_END = "<think>", "</think>"
CALL, CALL_END = "<tool_call>", "</tool_call>"
CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja").read_text().rstrip("\n")

# A tool as the OpenAI API declares it: {"type": "function", "function": {...}}.
Definition = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a tool."""

    name: str
    arguments: Mapping[str, object]

    def text(self) -> str:
        """The call as the model writes it, with its markers."""
        return f'{CALL}\n{{"name": "{self.name}", "arguments": {dump(self.arguments)}}}\n{CALL_END}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a chat.

    thought:      what the assistant thinks before this answer; empty without
    calls:        the assistant's calls after the content
    are_keys_set: the content is a JSON object of which a grammar writes all but the values
    """

    role: str
    content: str
    thought: str = ""
    calls: tuple[Call, ...] = ()
    are_keys_set: bool = False

    def answer(self) -> str:
        """What the assistant writes after the thought."""
        return "\n".join(part for part in (self.content, *(call.text() for call in self.calls)) if part)

    def as_chat(self) -> dict[str, object]:
        """The message as the chat template takes it."""
        chat: dict[str, object] = {"role": self.role, "content": self.content}
        if self.thought:
            chat["reasoning_content"] = self.thought
        if self.calls:
            functions = [{"name": call.name, "arguments": dict(call.arguments)} for call in self.calls]
            chat["tool_calls"] = [{"type": "function", "function": function} for function in functions]
        return chat


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialog:
    """Messages, the tools declared for them, and the switch for thinking of the last answer (None: not set)."""

    messages: list[Message]
    tools: tuple[Definition, ...] = field(default=())
    thinking: bool | None = None

    def prompt(self) -> str:
        """The messages rendered, up to the beginning of the next answer."""
        switch = {} if self.thinking is None else {"enable_thinking": self.thinking}
        chat = [message.as_chat() for message in self.messages]
        return _template().render(messages=chat, tools=list(self.tools) or None, add_generation_prompt=True, **switch)

    def text(self) -> str:
        """The prompt before the last message, and that message as the model writes it."""
        before = Dialog(messages=self.messages[:-1], tools=self.tools, thinking=self.thinking)
        last = self.messages[-1]
        thought = f"{last.thought}\n{THINK_END}\n\n" if self.thinking else ""
        return f"{before.prompt()}{thought}{last.answer()}{MESSAGE_END}\n"


def dump(value: object) -> str:
    """JSON as chat templates write it: a blank after commas and colons, letters of all languages as they are."""
    return json.dumps(value, ensure_ascii=False)


@cache
def _template() -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = dump
    return environment.from_string(CHAT_TEMPLATE)
