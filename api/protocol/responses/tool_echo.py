"""The tools of a request as its response repeats them: `strict` is always a boolean."""

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import cast

from api.protocol.tools.tool_set import Tool
from storage.contract import JobHeader

# In the context of a response with functions: whether each of them is strict, in order.
_STRICT = "strict_functions"
_Wire = Mapping[str, object]


def strictness_of(tools: Sequence[Tool], unenforced: Container[str]) -> dict[str, object]:
    """The entry of the context. A function that does not say it is strict if its whole schema is enforced.

    unenforced: `param` of those whose schema is not
    """
    if not tools:
        return {}
    functions = [tool for tool in tools if not tool.is_custom]
    strict = [tool.param not in unenforced if tool.is_strict is None else tool.is_strict for tool in functions]
    return {_STRICT: strict} if functions else {}


def echoed_tools(header: JobHeader) -> list[dict[str, object]]:
    """The `tools` of a response object."""
    strict = iter(cast(list[bool], header.context.get(_STRICT, [])))
    return [_echoed(tool, strict) for tool in cast(list[_Wire], header.request.get("tools", []))]


def _echoed(tool: _Wire, strict: Iterator[bool]) -> dict[str, object]:
    if tool["type"] == "namespace":
        tools = [_echoed(one, strict) for one in cast(list[_Wire], tool["tools"])]
        return {**tool, "description": tool.get("description") or "", "tools": tools}
    if tool["type"] == "custom":
        return {**tool, "format": tool.get("format") or {"type": "text"}}
    declared = {"description": tool.get("description"), "parameters": tool.get("parameters")}
    return {**tool, **declared, "strict": next(strict)}
