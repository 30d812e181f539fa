"""What one reading of a schema finds: keywords that are not enforced, and faults that refuse the schema."""

import math
from collections.abc import Mapping
from typing import NamedTuple

# Where a schema stands in its document: the keys and indices that lead to it.
SchemaPath = tuple[str | int, ...]
Schema = dict[str, object] | bool
# Schemas of one document, references counted once. llguidance reads no more either.
MAX_SCHEMAS = 20_000
# Objects and lists inside each other; a JSON reader in Rust stops at 128.
MAX_DEPTH = 100
_MAX_SHOWN = 200


class SchemaRefused(Exception):
    """A schema that is not compiled, whatever `strict` says; the message is for its author."""


class Unenforced(NamedTuple):
    """A keyword that is not enforced where it stands."""

    keyword: str
    path: SchemaPath
    reason: str

    @property
    def sentence(self) -> str:
        """The refusal of a strict schema, in OpenAI's form."""
        return f"{context_of(self.path)}, '{self.keyword}' {self.reason}"


class Findings:
    """Collects what is not enforced, and counts what was read."""

    def __init__(self) -> None:
        self.unenforced: list[Unenforced] = []
        self._num_schemas = 0
        self._multiples: set[tuple[int, int]] = set()

    def leave_out(self, keyword: str, path: SchemaPath, reason: str = "cannot be enforced") -> None:
        """Note a keyword that is left out of the normal form."""
        self.unenforced.append(Unenforced(keyword, path, reason))

    def takes_multiple(self, units: int, decimals: int) -> bool:
        """Whether a `multipleOf` can be compiled beside those before it: their product has to fit in 32 bits."""
        multiples = self._multiples | {(units, decimals)}
        most = max(digits for _, digits in multiples)
        if math.prod(number * 10 ** (most - digits) for number, digits in multiples) >= 2**32:
            return False
        self._multiples = multiples
        return True

    def count(self, path: SchemaPath) -> None:
        """Count a schema; raises SchemaRefused beyond the limits."""
        self._num_schemas += 1
        if self._num_schemas > MAX_SCHEMAS:
            raise SchemaRefused(f"it has more than {MAX_SCHEMAS} schemas")
        if len(path) > MAX_DEPTH:
            raise SchemaRefused(f"{context_of(path)}, it is nested more than {MAX_DEPTH} deep")

    @property
    def names(self) -> tuple[str, ...]:
        """The keywords that were left out, each once, in the order in which they were met."""
        return tuple(dict.fromkeys(finding.keyword for finding in self.unenforced))


def context_of(path: SchemaPath) -> str:
    """The path as OpenAI's messages have it, cut to a readable length."""
    shown = repr(path)
    return f"In context={shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + '...'}"


def mapping_of(schema: object, path: SchemaPath) -> Mapping[str, object]:
    """A schema that is an object; raises SchemaRefused for anything else."""
    if not isinstance(schema, dict):
        raise SchemaRefused(f"{context_of(path)}, a schema must be an object or a boolean")
    return schema
