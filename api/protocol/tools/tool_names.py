"""Names of tools: those in a namespace are written with it, as `NAMESPACE.NAME`, and no name itself has a dot."""

_JOINT = "."


def qualified_name(name: str, namespace: str | None) -> str:
    """The name that the model sees and writes."""
    return name if namespace is None else f"{namespace}{_JOINT}{name}"


def split_name(qualified: str) -> tuple[str | None, str]:
    """(namespace, name); the namespace is None where there is none."""
    namespace, joint, name = qualified.rpartition(_JOINT)
    return (namespace, name) if joint else (None, qualified)
