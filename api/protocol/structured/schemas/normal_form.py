"""The normal form of a schema: what of it is enforced, in the few keywords of draft 2020-12 that are compiled.

References lead to `$defs` at the root; annotations, unknown keywords and what cannot be enforced are gone.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple, cast

from api.protocol.structured.schemas.containers import arrays, leave_out_patterns, objects
from api.protocol.structured.schemas.exclusive import Branches
from api.protocol.structured.schemas.keywords import KEYWORDS, acts_on
from api.protocol.structured.schemas.malformed import refuse_malformed
from api.protocol.structured.schemas.reading import Findings, Schema, SchemaPath, mapping_of
from api.protocol.structured.schemas.references import Resource, is_local, resource_of, target_of
from api.protocol.structured.schemas.scalars import numbers, strings
from api.protocol.structured.schemas.text_formats import EXACT_PATTERNS
from api.protocol.structured.schemas.values import has_exact_numbers, is_writable

_APPLICATORS = ("const", "enum", "anyOf", "oneOf", "allOf", "$ref")


class _Pending(NamedTuple):
    name: str
    schema: object
    path: SchemaPath
    resource: Resource


class NormalForm:
    """Reads one schema document into its normal form.

    findings: what was left out
    """

    def __init__(
        self, document: object, *, compiles: Callable[[Schema], bool] | None = None, intersects: bool = True
    ) -> None:
        """Patterns that cannot be compiled are found only with `compiles`.

        compiles:   whether a schema can be compiled by itself
        intersects: False keeps of each schema its own keywords or one of those that name other schemas, for documents
                    whose intersections cannot be compiled
        """
        self._compiles = compiles
        self.findings = Findings()
        self._document = Resource(document)
        self._intersects = intersects
        self._names: dict[int, str] = {}
        self._pending: list[_Pending] = []
        self._branches = Branches()

    def read(self) -> Schema:
        """The normal form; raises SchemaRefused."""
        root = self._schema(self._document.root, (), self._document)
        definitions: dict[str, object] = {}
        while self._pending:
            name, schema, path, resource = self._pending.pop(0)
            definitions[name] = self._schema(schema, path, resource)
        return {**root, "$defs": definitions} if isinstance(root, dict) and definitions else root

    def _schema(self, value: object, path: SchemaPath, around: Resource) -> Schema:
        self.findings.count(path)
        if isinstance(value, bool):
            return value
        schema = mapping_of(value, path)
        refuse_malformed(schema, path)
        if schema.get("not") in (True, {}):
            return False
        resource = resource_of(schema, path, around)
        self._leave_out_conditions(schema, path)
        plain, applied = self._plain(schema, path, resource), self._applied(schema, path, resource)
        if not self._intersects:
            self._leave_out_intersections(plain, applied, path)
        # Keys are written in the order of the schema: where its references come first, those of their targets do.
        is_plain_first = next((name not in _APPLICATORS for name in schema if name in (*_APPLICATORS, *plain)), True)
        return {**plain, **applied} if is_plain_first else {**applied, **plain}

    def _leave_out_conditions(self, schema: Mapping[str, object], path: SchemaPath) -> None:
        if schema.get("not", False) is not False:
            self.findings.leave_out("not", path)
        if "if" in schema and ("then" in schema or "else" in schema):
            self.findings.leave_out("if", path)
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if keyword in schema:
                self.findings.leave_out(keyword, path)

    def _leave_out_intersections(self, plain: dict[str, object], applied: dict[str, object], path: SchemaPath) -> None:
        has_own_keywords = bool(plain.keys() - {"type"})
        for keyword in list(applied)[0 if has_own_keywords else 1 :]:
            del applied[keyword]
            self.findings.leave_out(keyword, path)
        if applied and "type" in plain:
            del plain["type"]
            self.findings.leave_out("type", path)
        # A property that a pattern names too has to fit both schemas.
        if "properties" in plain and "patternProperties" in plain:
            leave_out_patterns(plain)
            self.findings.leave_out("patternProperties", path)
        if len(cast(list[Schema], applied.get("allOf", []))) > 1:
            del applied["allOf"]
            self.findings.leave_out("allOf", path)

    def _plain(self, schema: Mapping[str, object], path: SchemaPath, resource: Resource) -> dict[str, object]:
        """Type and the keywords that act on values of one type."""

        def read(value: object, where: SchemaPath) -> Schema:
            return self._schema(value, where, resource)

        types = types_of(schema)
        acting = {name: value for name, value in schema.items() if name in KEYWORDS and acts_on(name, types)}
        plain: dict[str, object] = {"type": schema["type"]} if "type" in schema else {}
        plain |= strings(acting, path, self.findings)
        plain |= numbers(acting, path, self.findings)
        plain |= arrays(acting, path, self.findings, read)
        plain |= objects(acting, path, self.findings, read)
        if self._compiles is not None:
            self._leave_out_patterns(plain, path, self._compiles)
        return plain

    def _leave_out_patterns(
        self, plain: dict[str, object], path: SchemaPath, compiles: Callable[[Schema], bool]
    ) -> None:
        """Leave out patterns, and formats beside them, that the compiler refuses where they stand alone."""
        names = ("minLength", "maxLength", "pattern", "format")
        texts: dict[str, object] = {name: plain[name] for name in names if name in plain}
        for keyword in ("pattern", "format"):
            if keyword in texts and not compiles({"type": "string", **texts}):
                del texts[keyword], plain[keyword]
                self.findings.leave_out(keyword, path, "cannot be enforced: it cannot be compiled")
        patterns = cast(dict[str, object], plain.get("patternProperties", {}))
        if patterns and not compiles({"type": "object", "patternProperties": dict.fromkeys(patterns, True)}):
            leave_out_patterns(plain)
            reason = "cannot be enforced: a pattern cannot be compiled, or a name may match two of them"
            self.findings.leave_out("patternProperties", path, reason)

    def _applied(self, schema: Mapping[str, object], path: SchemaPath, resource: Resource) -> dict[str, object]:
        """The keywords that act on values of all types, in the order of the schema."""
        applied: dict[str, object] = {}
        exact = EXACT_PATTERNS.get(str(schema.get("format")))
        if exact is not None and "pattern" in schema:
            _add(applied, "allOf", [{"type": "string", "pattern": exact}])
        for keyword in schema:
            match keyword:
                case "const" | "enum":
                    self._name_values(applied, keyword, schema[keyword], path)
                case "anyOf":
                    _add(applied, "anyOf", self._list(schema, keyword, path, resource))
                case "oneOf":
                    if not self._branches.exclude_each_other(cast(list[object], schema[keyword]), resource):
                        self.findings.leave_out(keyword, path, "cannot be enforced, since its branches may overlap")
                    _add(applied, "anyOf", self._list(schema, keyword, path, resource))
                case "allOf":
                    _add(applied, "allOf", self._list(schema, keyword, path, resource))
                case "$ref":
                    self._refer(applied, cast(str, schema[keyword]), path, resource)
        return applied

    def _name_values(self, applied: dict[str, object], keyword: str, named: object, path: SchemaPath) -> None:
        """Add the values of a `const` or `enum` that an answer can hold."""
        values = [named] if keyword == "const" else cast(list[object], named)
        if not has_exact_numbers(values):
            self.findings.leave_out(keyword, path, "cannot be enforced: it has a number beyond 2^53")
        elif all(map(is_writable, values)):
            applied[keyword] = named
        else:
            writable = list(filter(is_writable, values))
            _add(applied, "allOf", [{"enum": writable} if writable else False])

    def _list(self, schema: Mapping[str, object], keyword: str, path: SchemaPath, resource: Resource) -> list[Schema]:
        branches = cast(list[object], schema[keyword])
        return [self._schema(branch, (*path, keyword, index), resource) for index, branch in enumerate(branches)]

    def _refer(self, applied: dict[str, object], reference: str, path: SchemaPath, resource: Resource) -> None:
        if not is_local(reference):
            self.findings.leave_out("$ref", path, "cannot be enforced: only '#' and '#/...' are followed")
            return
        target = target_of(reference, resource, path)
        if target.schema is self._document.root:
            applied["$ref"] = "#"
            return
        name = self._names.get(id(target.schema))
        if name is None:
            name = self._names[id(target.schema)] = f"d{len(self._names)}"
            self._pending.append(_Pending(name, target.schema, target.path, target.resource))
        applied["$ref"] = f"#/$defs/{name}"


def _add(applied: dict[str, object], keyword: str, branches: list[Schema]) -> None:
    """Add a list of branches; a second `anyOf` becomes a part of `allOf`, and both lists of `allOf` are one."""
    if keyword == "allOf":
        applied["allOf"] = [*cast(list[Schema], applied.get("allOf", [])), *branches]
    elif "anyOf" in applied:
        _add(applied, "allOf", [{"anyOf": branches}])
    else:
        applied["anyOf"] = branches


def types_of(schema: Mapping[str, object]) -> frozenset[str] | None:
    """The types that `type` allows; None is all."""
    types = schema.get("type")
    if types is None:
        return None
    return frozenset(cast(list[str], types)) if isinstance(types, list) else frozenset({cast(str, types)})
