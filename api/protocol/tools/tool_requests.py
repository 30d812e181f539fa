"""The fields of create requests for tools: `tools`, `tool_choice`, `parallel_tool_calls`."""

from collections.abc import Iterator, Sequence
from functools import cached_property

from api.protocol.families.grammar.output_grammar import ChoiceMode, ToolChoice
from api.protocol.structured.constraints import Constraint, ConstraintKind
from api.protocol.structured.format_fields import StructuredRequest
from api.protocol.tools.choice_fields import AllowedTools, ChatChoice, ChoiceWord, NamedChoice, ResponseChoice
from api.protocol.tools.tool_fields import (
    MAX_TOOLS,
    ChatCustomFields,
    ChatFunctionTool,
    ChatToolList,
    CustomTool,
    FunctionFields,
    FunctionTool,
    GrammarDefinition,
    NamespaceTool,
    NestedGrammar,
    ResponseToolList,
)
from api.protocol.tools.tool_names import qualified_name
from api.protocol.tools.tool_set import NO_TOOL_SET, Tool, ToolSet
from storage.errors import InvalidFunctionParameters, InvalidRequest, InvalidToolChoice

_CHOICE = "tool_choice"
_TOOL_FIELDS = frozenset({"tools", _CHOICE})
FlatChoice = ChoiceWord | NamedChoice | AllowedTools


class ToolRequest(StructuredRequest):
    """The fields that both wires share."""

    parallel_tool_calls: bool | None = None

    @property
    def tool_set(self) -> ToolSet:
        """The tools of the request. Raises InvalidToolChoice, InvalidFunctionParameters and InvalidRequest."""
        return NO_TOOL_SET if self.model_fields_set.isdisjoint(_TOOL_FIELDS) else self._given_tool_set

    @cached_property
    def _given_tool_set(self) -> ToolSet:
        tools = tuple(self._declared())
        _check(tools)
        choice = _choice_of(self._chosen(), tools, is_parallel=self.parallel_tool_calls is not False)
        if choice.mode is ChoiceMode.REQUIRED and self.answer_constraint is not None:
            raise InvalidToolChoice(
                f"Invalid '{_CHOICE}': an answer that must be a tool call cannot have a format.", param=_CHOICE
            )
        return ToolSet(tools=tools, choice=choice)

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        answer, tools = super().constraints, self.tool_set
        return answer if tools is NO_TOOL_SET else (*answer, *tools.constraints)

    def _declared(self) -> Iterator[Tool]:
        raise NotImplementedError

    def _chosen(self) -> FlatChoice:
        raise NotImplementedError


class ChatToolRequest(ToolRequest):
    """The fields of Chat."""

    tools: ChatToolList | None = None
    tool_choice: ChatChoice | None = None

    def _declared(self) -> Iterator[Tool]:
        for index, tool in enumerate(self.tools or ()):
            if isinstance(tool, ChatFunctionTool):
                yield _function(tool.function, f"tools[{index}].function")
            else:
                yield _chat_custom(tool.custom, f"tools[{index}].custom")

    def _chosen(self) -> FlatChoice:
        choice = self.tool_choice or "auto"
        return choice if isinstance(choice, str) else choice.flat


class ResponseToolRequest(ToolRequest):
    """The fields of Responses."""

    tools: ResponseToolList | None = None
    tool_choice: ResponseChoice | None = None

    def _declared(self) -> Iterator[Tool]:
        for index, tool in enumerate(self.tools or ()):
            if isinstance(tool, NamespaceTool):
                for number, member in enumerate(tool.tools):
                    yield _flat(member, f"tools[{index}].tools[{number}]", tool)
            else:
                yield _flat(tool, f"tools[{index}]", None)

    def _chosen(self) -> FlatChoice:
        return self.tool_choice or "auto"


def _flat(tool: FunctionTool | CustomTool, path: str, group: NamespaceTool | None) -> Tool:
    if isinstance(tool, FunctionTool):
        return _function(tool, path, group)
    grammar = tool.format if isinstance(tool.format, GrammarDefinition) else None
    return _custom(tool.name, tool.description, grammar, f"{path}.format.definition", group)


def _chat_custom(tool: ChatCustomFields, path: str) -> Tool:
    grammar = tool.format.grammar if isinstance(tool.format, NestedGrammar) else None
    return _custom(tool.name, tool.description, grammar, f"{path}.format.grammar.definition", None)


def _function(tool: FunctionFields, path: str, group: NamespaceTool | None = None) -> Tool:
    return Tool(
        name=qualified_name(tool.name, None if group is None else group.name),
        param=f"{path}.parameters",
        description=_description(tool.description, group),
        parameters=tool.parameters,
        is_strict=tool.strict,
        output_schema=tool.output_schema,
    )


def _custom(
    name: str, description: str | None, grammar: GrammarDefinition | None, param: str, group: NamespaceTool | None
) -> Tool:
    return Tool(
        name=qualified_name(name, None if group is None else group.name),
        param=param,
        is_custom=True,
        description=_description(description, group),
        kind=None if grammar is None else ConstraintKind(grammar.syntax),
        text="" if grammar is None else grammar.definition,
    )


def _description(own: str | None, group: NamespaceTool | None) -> str | None:
    """The description of a tool, behind that of its namespace."""
    parts = [text for text in (None if group is None else group.description, own) if text]
    return "\n".join(parts) if parts else own


def _check(tools: Sequence[Tool]) -> None:
    """Raise what is wrong with the tools taken together."""
    if len(tools) > MAX_TOOLS:
        raise InvalidRequest(f"Invalid 'tools': expected at most {MAX_TOOLS} tools.", param="tools")
    names: set[str] = set()
    for tool in tools:
        if tool.name in names:
            raise InvalidRequest(f"Invalid 'tools': two of them have the name '{tool.name}'.", param="tools")
        names.add(tool.name)
        if tool.parameters is not None and tool.parameters.get("type", "object") != "object":
            reason = "its 'type' must be 'object'"
            raise InvalidFunctionParameters(f"Invalid schema for function '{tool.name}': {reason}.", param=tool.param)


def _choice_of(chosen: FlatChoice, tools: Sequence[Tool], *, is_parallel: bool) -> ToolChoice:
    if isinstance(chosen, str):
        mode = ChoiceMode(chosen)
        if mode is ChoiceMode.REQUIRED and not tools:
            raise InvalidToolChoice(f"Invalid '{_CHOICE}': the request declares no tools.", param=_CHOICE)
        return ToolChoice(mode=mode, is_once=not is_parallel)
    if isinstance(chosen, AllowedTools):
        names = frozenset(name for one in chosen.tools for name in _names_of(one, tools))
        return ToolChoice(mode=ChoiceMode(chosen.mode), names=names, is_once=not is_parallel)
    return ToolChoice(mode=ChoiceMode.REQUIRED, names=frozenset(_names_of(chosen, tools)), is_once=True)


def _names_of(chosen: NamedChoice, tools: Sequence[Tool]) -> list[str]:
    """The tools that a choice names: one, or all of a namespace."""
    if chosen.type == "namespace":
        found = [tool.name for tool in tools if tool.name.startswith(f"{chosen.name}.")]
    else:
        name = qualified_name(chosen.name, chosen.namespace)
        found = [tool.name for tool in tools if tool.name == name and tool.is_custom == (chosen.type == "custom")]
    if not found:
        raise InvalidToolChoice(
            f"Invalid '{_CHOICE}': the request declares no {chosen.type} '{chosen.name}'.", param=_CHOICE
        )
    return found
