"""Who imports whom in the three packages, and the circles of it; read from the source, nothing is imported."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

Graph = Mapping[str, Iterable[str]]


def import_graph(root: Path, rooms: tuple[str, ...]) -> dict[str, set[str]]:
    """The modules that each module of the rooms imports; `__init__.py` files hold no code and do not count."""
    path_by_module = {
        ".".join(path.relative_to(root).with_suffix("").parts): path
        for room in rooms
        for path in (root / room).rglob("*.py")
        if path.name != "__init__.py" and "migrations" not in path.parts
    }
    return {module: _imports_of(path, path_by_module.keys()) for module, path in path_by_module.items()}


def _imports_of(path: Path, modules: Iterable[str]) -> set[str]:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.add(node.module)
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
    return imported & set(modules)


def projected(graph: Graph, package: str) -> dict[str, set[str]]:
    """The graph of a package's direct children, folders or files, without imports inside a child."""
    prefix = f"{package}."
    edges: dict[str, set[str]] = {}
    for module, imported in graph.items():
        if not module.startswith(prefix):
            continue
        child = module.removeprefix(prefix).partition(".")[0]
        others = {name.removeprefix(prefix).partition(".")[0] for name in imported if name.startswith(prefix)}
        edges.setdefault(child, set()).update(others - {child})
    return edges


def packages(graph: Graph) -> list[str]:
    """Every package that holds a module."""
    return sorted({module.rsplit(".", depth)[0] for module in graph for depth in range(1, module.count(".") + 1)})


def in_circles(graph: Graph) -> set[str]:
    """The nodes that can be reached from themselves."""
    return {node for node in graph if node in _reached_from(graph, node)}


def _reached_from(graph: Graph, start: str) -> set[str]:
    reached: set[str] = set()
    ahead = list(graph[start])
    while ahead:
        if (node := ahead.pop()) not in reached:
            reached.add(node)
            ahead.extend(graph.get(node, ()))
    return reached
