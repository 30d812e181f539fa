"""The shape of the house: rooms in this tree, walls that hold, sizes, and files that agree with each other."""

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.house import words
from tests.house.imports import import_graph, in_circles, packages, projected

ROOT = Path(__file__).parents[1]
ROOMS = ("api", "workers", "storage")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
FILES = sorted(path for folder in (*ROOMS, "demo", "tests", "bench") for path in (ROOT / folder).rglob("*.py"))
MODULES = [path for path in FILES if path.relative_to(ROOT).parts[0] in ROOMS]
MAX_FILES_IN_A_FOLDER = 14
MAX_METHODS = 20
# File names that mean the same thing wherever they stand; every other name stands for one file only.
SHARED_NAMES = {
    "settings",
    "tables",
    "errors",
    "request",
    "prepare",
    "object",
    "fold",
    "kind",
    "runner",
    "assembly",
}
# What still breaks a rule, exactly: who mends an entry takes it out of its list, and nobody puts one in.
CROWDED_FOLDERS: set[str] = set()
BIG_CLASSES: set[str] = set()
# Alembic writes these: one long function each.
WRITTEN_BY_PROGRAMS = ROOT / "storage" / "database" / "migrations" / "versions"


def name_of(path: Path) -> str:
    """A file's name in test ids."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("room", ROOMS)
def test_the_rooms_lie_in_this_tree(room: str) -> None:
    spec = find_spec(room)

    assert spec is not None
    assert spec.origin == str(ROOT / room / "__init__.py")


@pytest.mark.parametrize("module", ["api.app", "api.cli.main", "workers.cpu", "storage.jobs.jobs"])
def test_no_slow_library_is_loaded_where_none_is_needed(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    environment = {"TOKENPOST_DATABASE_URL": "sqlite:////nowhere.db", "TOKENPOST_REDIS_URL": "unix:///nowhere.sock"}

    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    ).stdout.split()

    assert not {"torch", "transformers", "alembic"} & set(loaded)
    assert ("workers" in loaded) == module.startswith("workers")


def test_no_file_is_too_long() -> None:
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in FILES}

    assert {name: length for name, length in lengths.items() if length > MAX_FILE_LINES} == {}


def test_no_function_is_too_long() -> None:
    too_long = {}
    for path in MODULES:
        if path.is_relative_to(WRITTEN_BY_PROGRAMS):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                # A kernel is one story with many operands.
                if any(ast.unparse(decorator).startswith("triton.jit") for decorator in node.decorator_list):
                    continue
                length = node.end_lineno - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    too_long[f"{name_of(path)}:{node.name}"] = length

    assert too_long == {}


def test_no_folder_holds_too_many_files() -> None:
    # Migrations are a sequence that only grows.
    written = [path for path in MODULES if not path.is_relative_to(WRITTEN_BY_PROGRAMS)]
    counts = Counter(name_of(path.parent) for path in written if path.name != "__init__.py")

    assert {folder for folder, count in counts.items() if count > MAX_FILES_IN_A_FOLDER} == CROWDED_FOLDERS


def test_no_file_name_means_two_things() -> None:
    paths_by_name: dict[str, list[str]] = {}
    for path in MODULES:
        if path.name != "__init__.py":
            paths_by_name.setdefault(path.stem, []).append(name_of(path))

    assert {name: paths for name, paths in paths_by_name.items() if len(paths) > 1 and name not in SHARED_NAMES} == {}


def test_no_class_has_too_many_methods() -> None:
    big = {
        f"{name_of(path)}:{node.name}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
        and sum(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in node.body) > MAX_METHODS
    }

    assert big == BIG_CLASSES


def test_no_file_imports_itself_by_way_of_others() -> None:
    assert in_circles(import_graph(ROOT, ROOMS)) == set()


def test_no_folder_or_file_beside_others_is_in_an_import_circle() -> None:
    graph = import_graph(ROOT, ROOMS)

    circles = {f"{package}.{child}" for package in packages(graph) for child in in_circles(projected(graph, package))}

    assert circles == set()


def test_a_circle_of_imports_is_found() -> None:
    graph = {"a.b.one": {"a.c.two"}, "a.c.two": set(), "a.c.three": {"a.b.one"}, "a.d": {"a.c.two"}}

    assert in_circles(graph) == set()
    assert in_circles(projected(graph, "a")) == {"b", "c"}
    assert packages(graph) == ["a", "a.b", "a.c"]


def test_no_private_word_comes_back() -> None:
    assert words.findings() == []


def test_private_words_are_found_in_names_and_prose_and_not_where_everybody_uses_them() -> None:
    text = """
queue_lanes = 1  # the ticket's road
class LaneTable: ...
DOOR = 2
# exponential race, a power of two, indoor planes
"""

    assert [(finding.line, finding.word) for finding in sorted(words.findings_in("api/x.py", text))] == [
        (2, "lanes"),
        (2, "road"),
        (3, "lane"),
        (4, "door"),
    ]


def test_a_package_file_holds_one_docstring_and_no_code() -> None:
    for path in MODULES:
        if path.name == "__init__.py":
            body = ast.parse(path.read_text()).body
            assert [type(node) for node in body] == [ast.Expr], name_of(path)


def test_no_room_has_a_corner_for_everything() -> None:
    names = {part for path in MODULES for part in path.relative_to(ROOT).with_suffix("").parts}

    assert not names & {"utils", "util", "common", "helpers", "helper", "base", "misc"}


def test_every_dependency_is_pinned_to_one_public_version() -> None:
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]

    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins), "no addresses, no local versions"
    pinned = {re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower() for pin in pins}
    names = {re.sub(r"[-_.]+", "-", re.split(r"[\[><=;\s]", one)[0]).lower() for one in wanted}
    assert names - pinned == set()


def test_nothing_tells_of_the_machine_it_was_written_on() -> None:
    texts = [
        *FILES,
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "examples").rglob("*"),
        ROOT / "Makefile",
        ROOT / "README.md",
    ]
    private = re.compile(r"/(?:work|opt/wheels)\b")

    assert [name_of(path) for path in texts if path.is_file() and private.search(path.read_text())] == []
