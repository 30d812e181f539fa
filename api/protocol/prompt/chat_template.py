"""Chat templates, rendered as transformers renders them, in a sandbox, since a template is untrusted code.

Source: `transformers.utils.chat_template_utils` 5.x, so that a prompt here is the prompt of `apply_chat_template`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import NoReturn

import jinja2
from jinja2 import nodes, runtime
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from api.protocol.prompt.thinking_form import NO_THINKING
from api.protocol.prompt.thought_turns import thought_name_of
from api.protocol.prompt.tool_form import ToolForm, tool_form_of
from storage.errors import InvalidRequest

# Exceptions of a template whose messages are not as it expects. A refusal by the sandbox is a TemplateError.
_TEMPLATE_FAULTS = (
    jinja2.TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


# Messages of probe renderings.
_USER: Mapping[str, str] = {"role": "user", "content": "a question of the probe"}
_ANSWER: Mapping[str, str] = {"role": "assistant", "content": "an answer of the probe"}
_UNKNOWN: Mapping[str, str] = {"role": "tokenpost_probe_role", "content": "x"}


def _system(content: str) -> Mapping[str, str]:
    return {"role": "system", "content": f"the {content} instructions of the probe"}


class ChatTemplate:
    """A compiled chat template with its special tokens."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """What a template accepts is found out by probe renderings, since a mention of a word in it says nothing."""
        self.source = source
        self._special_tokens = dict(special_tokens)
        self._render = _compile(source)
        self.knows_developer = self._treats_specially("developer")
        self.takes_two_systems = self._shows_all(_system("first"), _system("second"), _USER)
        self.takes_late_systems = self._shows_all(_system("first"), _USER, _ANSWER, _system("second"), _USER)

    @cached_property
    def takes_system(self) -> bool:
        """Whether it shows a system message."""
        return self._shows_all(_system("only"), _USER)

    @cached_property
    def tool_form(self) -> ToolForm:
        """How it takes tools, calls and results; found out when a chat has any."""
        return tool_form_of(self._probe)

    @cached_property
    def thought_name(self) -> str:
        """The name by which it reads thoughts; found out when a chat has any."""
        return thought_name_of(self._probe)

    def rendered_question(self, arguments: Mapping[str, object]) -> str | None:
        """The prompt of one question; None where the template refuses it."""
        try:
            return self.render([_USER], arguments=arguments, field="messages")
        except InvalidRequest:
            return None

    def _treats_specially(self, role: str) -> bool:
        """Whether messages of this role are rendered differently from those of a role that no template knows."""
        known, unknown = self._probe([{"role": role, "content": "x"}, _USER]), self._probe([_UNKNOWN, _USER])
        return known is not None and known != (unknown or "").replace(_UNKNOWN["role"], role)

    def _shows_all(self, *messages: Mapping[str, str]) -> bool:
        text = self._probe(messages)
        return text is not None and all(message["content"] in text for message in messages)

    def _probe(
        self, messages: Sequence[Mapping[str, object]], tools: Sequence[Mapping[str, object]] = ()
    ) -> str | None:
        try:
            return self.render(messages, tools=tools, field="messages")
        except InvalidRequest:
            return None

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]] = (),
        arguments: Mapping[str, object] = NO_THINKING,
        field: str,
    ) -> str:
        """The prompt text, up to the beginning of the assistant's answer. Raises InvalidRequest with `field` as param.

        tools:     in the form of Chat
        arguments: further ones of the template, those that switch thinking
        """
        try:
            return self._render(
                {
                    **self._special_tokens,
                    "messages": messages,
                    "tools": list(tools) or None,
                    "documents": None,
                    "add_generation_prompt": True,
                    **arguments,
                }
            )
        except _TEMPLATE_FAULTS as error:
            reason = str(error)[:200] or type(error).__name__
            raise InvalidRequest(f"The model's chat template refuses these messages: {reason}", param=field) from error


def _compile(source: str) -> Callable[[Mapping[str, object]], str]:
    """The template's render function. That of a template that does not compile always raises."""
    try:
        template = _environment().from_string(source)
        # Each rendering copies the globals, and jinja2's own ChainMap takes half of its time for that.
        template.globals = dict(template.globals)
        return template.render
    except _TEMPLATE_FAULTS as error:
        fault = error

    def refuse(_values: Mapping[str, object]) -> NoReturn:
        raise jinja2.TemplateError(f"it does not compile ({fault})")

    return refuse


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals.update(
        raise_exception=_raise_exception, strftime_now=_strftime_now, namespace=_Namespace, dict=_Dict()
    )
    return environment


class _GenerationTag(Extension):
    """`{% generation %}`, which marks text for training. In a prompt its body is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_body_of"), [], [], body).set_lineno(line)

    def _body_of(self, caller: runtime.Macro) -> str:
        return str(caller())


class _Dict:
    """`dict(...)` for templates, without the class and its attributes."""

    def __call__(self, *args: object, **kwargs: object) -> dict[str, object]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: object) -> dict[object, object]:
        """`dict.fromkeys` itself."""
        return dict.fromkeys(*args)  # type: ignore[call-overload, no-any-return] # arguments of the template


class _Namespace(Namespace):
    """`namespace(...)` that refuses names with a leading underscore, as a way out of the sandbox."""

    def __init__(*args: object, **kwargs: object) -> None:  # `namespace(self=...)` is legal in a template
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _refuse_private(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: object) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError("a namespace holds no names with a leading underscore")


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    # Local time without a zone, as in transformers: templates print the user's date.
    return datetime.now().strftime(pattern)  # noqa: DTZ005
