"""References inside a schema document: `#` and `#/...`."""

from typing import NamedTuple
from urllib.parse import unquote

from api.protocol.structured.schemas.reading import SchemaPath, SchemaRefused, context_of

_MAX_SHOWN = 100


class Resource(NamedTuple):
    """A schema against which references are resolved: the document, or a schema in it that has an `$id`."""

    root: object
    path: SchemaPath = ()


class Target(NamedTuple):
    """What a reference names."""

    schema: object
    path: SchemaPath
    resource: Resource


def is_local(reference: str) -> bool:
    """Whether a reference is one that is followed."""
    return reference == "#" or reference.startswith("#/")


def target_of(reference: str, resource: Resource, path: SchemaPath) -> Target:
    """What a local reference names; raises SchemaRefused where there is nothing.

    path: of the schema that has the reference
    """
    found, where, within = resource.root, resource.path, resource
    # "#/" names the key "" by the letter, and the document in practice.
    pointer = unquote(reference[2:])
    for step in pointer.split("/") if pointer else ():
        key: str | int = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[str(key)]
        elif isinstance(found, list) and step.isascii() and step.isdigit() and int(step) < len(found):
            key = int(step)
            found = found[key]
        else:
            shown = reference if len(reference) <= _MAX_SHOWN else reference[:_MAX_SHOWN] + "..."
            raise SchemaRefused(f"{context_of(path)}, '$ref' names nothing in this schema: {shown}")
        where = (*where, key)
        within = resource_of(found, where, within)
    return Target(found, where, within)


def resource_of(schema: object, path: SchemaPath, around: Resource) -> Resource:
    """The resource of a schema inside `around`: itself where it has an `$id` of its own."""
    own_id = schema.get("$id") if isinstance(schema, dict) and path else None
    return Resource(schema, path) if isinstance(own_id, str) and not own_id.startswith("#") else around
