"""The pages for people agree with the code that they describe."""

import re
from pathlib import Path

import pytest

from api.protocol.chat.request import ChatRequest
from api.protocol.completions.request import CompletionRequest
from api.protocol.responses.request import ResponseRequest
from api.protocol.shared.sampling_fields import SamplingRequest
from docs.generate import FOLDER, SETTINGS_GROUPS, TABLES, field_meanings, generated

README = FOLDER.parent / "README.md"
MAX_README_LINES = 250
_REQUESTS = (ResponseRequest, ChatRequest, CompletionRequest)


@pytest.mark.parametrize("name", TABLES)
def test_a_generated_table_is_that_of_the_code(name: str) -> None:
    page, table = TABLES[name]
    text = (FOLDER / page).read_text()

    assert text == generated(text, name, table()), "run: make docs"


def test_every_setting_has_a_meaning() -> None:
    documented = {name for _, kind in SETTINGS_GROUPS for name in field_meanings(kind)}

    missing = {name for _, kind in SETTINGS_GROUPS for name in kind.model_fields} - documented
    assert missing == set(), "a line `name: meaning` in the docstring of its settings class"


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= MAX_README_LINES


def test_every_sampling_field_is_documented_with_its_range() -> None:
    limits_by_field: dict[str, set[tuple[float, float]]] = {}
    for request in _REQUESTS:
        for field, schema in request.model_json_schema()["properties"].items():
            for one in (schema, *schema.get("anyOf", ())):
                if {"minimum", "maximum"} <= one.keys():
                    limits_by_field.setdefault(field, set()).add((one["minimum"], one["maximum"]))
    rows = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| [^|]+ \| ([^|]+) \|$", (FOLDER / "sampling.md").read_text(), re.MULTILINE
    )
    documented: dict[str, str] = {name: shown for names, shown in rows for name in re.findall(r"\w+", names)}

    assert set(SamplingRequest.model_fields) - documented.keys() == set()
    checked = 0
    for field, shown in documented.items():
        shown_limits = re.match(r"(-?[\d.]+) to (-?[\d.]+)", shown)
        if shown_limits is not None and field in limits_by_field:
            assert (float(shown_limits[1]), float(shown_limits[2])) in limits_by_field[field], field
            checked += 1
    assert checked >= 8


def test_every_link_of_a_page_leads_to_a_file() -> None:
    for page in (README, *FOLDER.rglob("*.md")):
        links = re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", page.read_text())
        assert [link for link in links if not (page.parent / Path(link)).exists()] == [], page.name
