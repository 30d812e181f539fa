"""The segment parser of a stored job, made from its header alone, so that a replay never asks the model."""

from collections.abc import Callable, Iterator, Mapping
from typing import cast

from msgspec import structs

from api.protocol.answer.segments import PARSER, ParserStart, PlainText, SegmentParser
from api.protocol.families.family import Family
from api.protocol.families.family_table import FAMILIES
from api.protocol.families.parsing.family_parser import FamilyParser
from api.protocol.families.parsing.parser_plan import CallableTool
from api.protocol.families.response_template import family_of_template
from storage.contract import JobHeader
from storage.errors import ModelUnavailable

MakeParser = Callable[[str], SegmentParser]

# Parsers besides those of families, by name, made from their initial state. A name that stands in stored jobs stays for
# ever.
PARSERS: Mapping[str, MakeParser] = {"text": lambda _state: PlainText()}


def parser_of(header: JobHeader) -> SegmentParser | None:
    """A fresh parser for a job; None for plain text, which needs none.

    Raises ModelUnavailable, which a client may retry, for a parser of a newer version of this server.
    """
    stored = header.context.get(PARSER)
    if stored is None:
        return None
    start = ParserStart.of(cast(Mapping[str, object], stored))
    if start.name in PARSERS:
        return PARSERS[start.name](start.state)
    family = FAMILIES.get(start.name) if start.template is None else family_of_template(start.template)
    if family is None:
        raise ModelUnavailable(f"This server does not know the output format '{start.name}' of the job.")
    tools = tuple(callable_tools(header.request)) if start.reads_calls else ()
    return FamilyParser(_as_read(family, start), start.state, tools)


def _as_read(family: Family, start: ParserStart) -> Family:
    """The family as this job's output is read."""
    return structs.replace(family.bound_to(start.tokens), **({} if start.reads_thoughts else {"thinking": None}))


def callable_tools(request: Mapping[str, object]) -> Iterator[CallableTool]:
    """The tools of a stored request, in the form of either wire."""
    yield from _tools_in(request.get("tools"))


def _tools_in(tools: object, before: str = "") -> Iterator[CallableTool]:
    """before: of the names of tools in a namespace"""
    for tool in cast(list[Mapping[str, object]], tools or []):
        kind = tool.get("type")
        if kind == "namespace":
            yield from _tools_in(tool.get("tools"), f"{tool['name']}.")
            continue
        body = cast(Mapping[str, object], tool.get(cast(str, kind)) or tool)
        parameters = cast(Mapping[str, object], body.get("parameters") or {})
        yield CallableTool(name=f"{before}{body['name']}", is_custom=kind == "custom", parameters=parameters)
