"""Tool declarations: the tools of a request as a prompt shows them, and the system text for templates without them."""

import json
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec

from api.protocol.prompt.system_turn import Message, is_system

_SIGNATURES = """\
# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>"""
# The form in which Hermes and Qwen models are trained.
_FORM = """\
For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
_CUSTOM_FORM = """\
The input of {names} is plain text and not JSON. Call {pronoun} in this form, with the input as it is:
{example}"""
_CUSTOM_CALL = "<tool_call>\n<custom={name}>\n{text}\n</custom>\n</tool_call>"


def generic_custom_call(name: str, text: str) -> str:
    """A call with plain text in the generic form."""
    return _CUSTOM_CALL.format(name=name, text=text)


class ToolDeclaration(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of a request.

    functions:      in the form of Chat; custom tools are functions of one string, `input`
    custom_names:   of those whose calls hold plain text
    custom_example: a call of one of them as the model writes it; empty for the generic form
    is_generic:     whether calls are written in the form of Hermes, whatever the template knows
    """

    functions: tuple[Mapping[str, object], ...] = ()
    custom_names: tuple[str, ...] = ()
    custom_example: str = ""
    is_generic: bool = False

    def described(self, *, is_needed: bool) -> Sequence[Mapping[str, object]]:
        """The functions; where templates need descriptions, those without have an empty one."""
        if not is_needed:
            return self.functions
        inner = (cast(Mapping[str, object], one["function"]) for one in self.functions)
        return [{"type": "function", "function": {"description": "", **function}} for function in inner]


NO_TOOLS = ToolDeclaration()
NO_TOOLS_GENERIC = ToolDeclaration(is_generic=True)


def declared_text(tools: ToolDeclaration, *, is_listed: bool, is_generic: bool) -> str:
    """The system text about tools; empty where the template says everything.

    is_listed:  whether the template lists the tools
    is_generic: whether calls are written in the form of Hermes
    """
    parts = []
    if tools.functions and not is_listed:
        listed = "\n".join(json.dumps(function, ensure_ascii=False) for function in tools.functions)
        parts.append(_SIGNATURES.replace("{tools}", listed))
    if tools.functions and is_generic:
        parts.append(_FORM)
    if tools.custom_names:
        names = ", ".join(tools.custom_names)
        pronoun = "it" if len(tools.custom_names) == 1 else "them"
        example = tools.custom_example or generic_custom_call(tools.custom_names[0], "input")
        parts.append(_CUSTOM_FORM.format(names=names, pronoun=pronoun, example=example))
    return "\n\n".join(parts)


def with_declaration(messages: Sequence[Message], text: str, *, takes_system: bool) -> Sequence[Message]:
    """The messages with a system text behind those at the beginning, or before the first user's text."""
    if takes_system:
        start = next((index for index, message in enumerate(messages) if not is_system(message)), len(messages))
        return [*messages[:start], {"role": "system", "content": text}, *messages[start:]]
    first = next((index for index, message in enumerate(messages) if message["role"] == "user"), None)
    if first is None:
        return [{"role": "user", "content": text}, *messages]
    asked = {**messages[first], "content": f"{text}\n\n{messages[first]['content']}"}
    return [*messages[:first], asked, *messages[first + 1 :]]
