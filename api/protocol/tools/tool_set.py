"""The tools of a request in any wire: their names, what constrains their calls, and which of them may be called."""

from collections.abc import Mapping

import msgspec

from api.protocol.families.family import CallForm, Family, custom_call_text
from api.protocol.families.family_table import GENERIC
from api.protocol.families.grammar.argument_grammar import unenforced_in
from api.protocol.families.grammar.output_grammar import ToolChoice, ToolPart
from api.protocol.prompt.tool_declaration import NO_TOOLS, NO_TOOLS_GENERIC, ToolDeclaration
from api.protocol.structured.constraints import Constraint, ConstraintKind, Judged
from api.protocol.tools.closed_schema import closed_schema
from storage.errors import InvalidFunctionParameters

NO_PARAMETERS: Mapping[str, object] = {"type": "object", "properties": {}, "additionalProperties": False}


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A declared tool.

    name:          as the model writes it: NAMESPACE.NAME where it is in a namespace
    param:         path of its schema or grammar in the request
    parameters:    of a function; None where it declares none
    is_strict:     of a function; None where it was not sent
    output_schema: of a function, shown to the model
    kind, text:    of the grammar of a custom tool's input; None where it is any text
    """

    name: str
    param: str
    is_custom: bool = False
    description: str | None = None
    parameters: dict[str, object] | None = None
    is_strict: bool | None = None
    output_schema: dict[str, object] | None = None
    kind: ConstraintKind | None = None
    text: str = ""

    @property
    def constraint(self) -> Constraint | None:
        """What its calls are held to; None for any text."""
        if not self.is_custom:
            text = msgspec.json.encode(_of_an_object(self.parameters)).decode()
            return self._constraint(ConstraintKind.SCHEMA, f"function '{self.name}'", text)
        return None if self.kind is None else self._constraint(self.kind, f"custom tool '{self.name}'", self.text)

    def _constraint(self, kind: ConstraintKind, title: str, text: str) -> Constraint:
        strict = self.is_custom or bool(self.is_strict)
        return Constraint(param=self.param, title=title, kind=kind, text=text, is_strict=strict, is_tool=True)

    @property
    def declared(self) -> dict[str, object]:
        """The tool in the form of Chat, as templates show it; a custom tool is a function of one string."""
        described = {} if self.description is None else {"description": self.description}
        returned = {} if self.output_schema is None else {"return": self.output_schema}
        parameters = self._input_schema() if self.is_custom else self.parameters
        shown = {"type": "object", "properties": {}} if parameters is None else parameters
        return {"type": "function", "function": {"name": self.name, **described, "parameters": shown, **returned}}

    def _input_schema(self) -> dict[str, object]:
        described = {} if self.kind is None else {"description": f"Text of this {self.kind} grammar:\n{self.text}"}
        return {"type": "object", "properties": {"input": {"type": "string", **described}}, "required": ["input"]}


class ToolSet(msgspec.Struct, frozen=True, kw_only=True):
    """The tools of a request, and which of them its answer may or must call."""

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice = ToolChoice()

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """All schemas and grammars to judge."""
        return tuple(one for one in (tool.constraint for tool in self.tools) if one is not None)

    def parts(self, judged: Mapping[str, Judged]) -> tuple[ToolPart, ...]:
        """The tools with the grammars of their calls, from the judgments by `param`."""
        return tuple(_part_of(tool, judged) for tool in self.tools)

    def unenforced(self, judged: Mapping[str, Judged], form: CallForm | None) -> dict[str, tuple[str, ...]]:
        """By `param`, the keywords that calls in this form are not held to, of the functions that have some.

        raises: InvalidFunctionParameters for a strict function
        """
        found = {}
        for tool in self.tools:
            if tool.is_custom or form is None or tool.param not in judged:
                continue
            names = unenforced_in(form, judged[tool.param].grammar_part)
            if names and tool.is_strict:
                reason = f"calls of this model do not enforce '{names[0]}'"
                message = f"Invalid schema for function '{tool.name}': {reason}."
                raise InvalidFunctionParameters(message, param=tool.param)
            if all_names := (*judged[tool.param].unenforced, *names):
                found[tool.param] = all_names
        return found

    def declaration(self, family: Family) -> ToolDeclaration:
        """What the prompt of a model of this family says of them."""
        if not self.tools:
            return NO_TOOLS_GENERIC if family.name == GENERIC.name else NO_TOOLS
        custom = tuple(tool.name for tool in self.tools if tool.is_custom)
        return ToolDeclaration(
            functions=tuple(tool.declared for tool in self.tools),
            custom_names=custom,
            custom_example=custom_call_text(family, custom[0], "input") if custom else "",
            is_generic=family.name == GENERIC.name,
        )


NO_TOOL_SET = ToolSet()


def _part_of(tool: Tool, judged: Mapping[str, Judged]) -> ToolPart:
    part = judged[tool.param].grammar_part if tool.param in judged else None
    return ToolPart(name=tool.name, is_custom=tool.is_custom, part=part)


def _of_an_object(parameters: Mapping[str, object] | None) -> Mapping[str, object]:
    """The schema of arguments, which are an object also where it does not say so."""
    if parameters is None:
        return NO_PARAMETERS
    return closed_schema(parameters if "type" in parameters else {"type": "object", **parameters})
