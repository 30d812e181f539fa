"""Real JSON schemas with instances: the JSON Schema Test Suite, and the operations of api.github.com."""

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tests.real.packages import GITHUB_API, SCHEMA_SUITE, fetched

DRAFTS = ("draft2020-12", "draft2019-09", "draft7", "draft6", "draft4")
# They need documents of a server that the suite's users run.
_REMOTE = ("refRemote", "vocabulary")
_COMPONENTS = "#/components/schemas/"
_REPLACEMENTS: tuple[object, ...] = (None, "x", -17.5, [], {}, True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A schema with instances: (value, whether it is valid)."""

    name: str
    schema: object
    instances: tuple[tuple[object, bool], ...]


def suite_cases(*, has_formats: bool = False) -> Iterator[Case]:
    """The schemas of the suite's five drafts; with `has_formats` those of its tests of formats."""
    tests = fetched(SCHEMA_SUITE) / SCHEMA_SUITE.members[0]
    for draft in DRAFTS:
        folder = tests / draft / "optional" / "format" if has_formats else tests / draft
        for file in sorted(folder.glob("*.json")):
            if file.stem not in _REMOTE:
                for group in json.loads(file.read_text()):
                    instances = tuple((test["data"], test["valid"]) for test in group["tests"])
                    name = f"{draft}/{file.stem}: {group['description']}"
                    yield Case(name=name, schema=group["schema"], instances=instances)


def github_requests() -> Iterator[tuple[str, dict[str, object], list[object]]]:
    """Name, schema and examples of each request body of api.github.com."""
    file = fetched(GITHUB_API) / GITHUB_API.members[0]
    api = json.loads(Path(file).read_text())
    for operations in api["paths"].values():
        for operation in operations.values():
            body = operation.get("requestBody", {}) if isinstance(operation, dict) else {}
            content = body.get("content", {}).get("application/json", {})
            if "schema" in content:
                named = [_named(api, example) for example in content.get("examples", {}).values()]
                examples = [one["value"] for one in named if "value" in one]
                yield operation["operationId"], _with_definitions(api, content["schema"]), examples


def _named(api: dict[str, Any], example: dict[str, Any]) -> dict[str, Any]:
    name = example.get("$ref", "").rpartition("/")[2]
    return cast(dict[str, Any], api["components"]["examples"][name]) if name else example


def _with_definitions(api: dict[str, Any], schema: dict[str, object]) -> dict[str, object]:
    """The schema with the components that it names in `$defs`."""
    names, definitions = list(_components(schema)), dict[str, object]()
    while names:
        name = names.pop()
        if name not in definitions:
            definitions[name] = api["components"]["schemas"][name]
            names += _components(definitions[name])
    text = json.dumps({**schema, "$defs": definitions} if definitions else schema)
    return cast(dict[str, object], json.loads(text.replace(_COMPONENTS, "#/$defs/")))


def _components(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        reference = value.get("$ref")
        if isinstance(reference, str) and reference.startswith(_COMPONENTS):
            yield reference.removeprefix(_COMPONENTS)
        for inner in value.values():
            yield from _components(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _components(inner)


def changed(value: object) -> Iterator[object]:
    """Values that differ from this one in one place: a key removed, added or renamed, or a value replaced."""
    for path in _paths(value):
        for replacement in _REPLACEMENTS:
            yield _replaced(value, path, replacement)
        inner = _at(value, path)
        if isinstance(inner, dict):
            yield _replaced(value, path, {**inner, "no such key": 1})
            for key in inner:
                yield _replaced(value, path, {name: one for name, one in inner.items() if name != key})
        elif isinstance(inner, list):
            yield _replaced(value, path, [*inner, {"x": None}])


def _paths(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(inner, (*path, key))


def _at(value: Any, path: tuple[str | int, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def _replaced(value: object, path: tuple[str | int, ...], replacement: object) -> object:
    if not path:
        return replacement
    whole = copy.deepcopy(value)
    _at(whole, path[:-1])[path[-1]] = replacement
    return whole
