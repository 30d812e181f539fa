"""Spans and ages in words, and the first screen's examples."""

import io
import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from api.cli.console import age, parse_duration
from api.cli.home import Home
from api.cli.models.model_argument import ModelArgument
from api.cli.settings import CliSettings, Location
from api.cli.supervisor.processes import Serving
from api.cli.supervisor.screen import Screen
from storage.errors import SettingInvalid

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (-3, "0 s"), (59, "59 s"), (60, "1 min"), (7200, "2 h"), (86400 * 30, "30 d")]
)
def test_an_age_is_reported_in_its_largest_unit(seconds: int, words: str) -> None:
    assert age(NOW - timedelta(seconds=seconds), NOW) == words


@pytest.mark.parametrize(("text", "days"), [("30d", 30), ("2w", 14), ("12h", 0.5), ("1440m", 1), ("86400s", 1)])
def test_a_span_has_a_number_and_a_unit(text: str, days: float) -> None:
    assert parse_duration(text) == timedelta(days=days)


@pytest.mark.parametrize("text", ["", "30", "d", "-1d", "1.5h", "0d", "3y", "٣d", "9" * 20 + "d"])
def test_what_is_no_span_is_refused(text: str) -> None:
    with pytest.raises(SettingInvalid, match="not a duration"):
        parse_duration(text)


DEMO = {"demo": {"completion": True, "embedding": False}}


def serving(host: str = "127.0.0.1", port: int = 8123) -> Serving:
    """A platform that serves one model."""
    home = Home(path=Path("/h"))
    location = Location(home=home, database_url=home.database_url, redis_url=home.redis_url, is_embedded=True)
    return Serving(
        location=location,
        settings=CliSettings(),
        models=(ModelArgument(name="demo", source="/m"),),
        host=host,
        port=port,
        replicas=1,
        device="auto",
        dtype="auto",
        is_key_required=False,
    )


def first_screen(*, is_key_needed: bool, models: Mapping[str, Mapping[str, bool]] = DEMO) -> str:
    """What a pipe would read."""
    out = io.StringIO()
    Screen(Console(file=out, width=40)).ready(serving(), models, "none", is_key_needed=is_key_needed)
    return out.getvalue()


def test_the_examples_stand_unbroken_at_the_left_margin() -> None:
    lines = first_screen(is_key_needed=False).splitlines()

    assert [line for line in lines if line.startswith("curl http://127.0.0.1:8123/v1/responses ")]
    start = lines.index("from openai import OpenAI")
    compile("\n".join(lines[start : start + 4]), "snippet", "exec")
    assert lines[start + 3] == "print(response.output_text)"


def test_the_examples_are_those_of_what_the_models_can_do() -> None:
    encoder = {"completion": False, "embedding": True}

    both = first_screen(is_key_needed=False, models={"minilm": encoder, **DEMO})
    vectors = first_screen(is_key_needed=False, models={"minilm": encoder})
    ratings = first_screen(is_key_needed=False, models={"cross": {"completion": False, "embedding": False}})

    assert "responses -H" in both
    assert '"model": "demo"' in both
    assert "curl http://127.0.0.1:8123/v1/embeddings " in vectors
    assert 'client.embeddings.create(model="minilm"' in vectors
    assert "curl http://127.0.0.1:8123/v1/rerank " in ratings
    for text in (vectors, ratings):
        compile(text[text.index("from openai") : text.index("Ctrl-C")], "snippet", "exec")


def test_the_examples_carry_the_key_where_one_is_needed() -> None:
    text = first_screen(is_key_needed=True)

    assert '-H "authorization: Bearer $TOKENPOST_API_KEY"' in text
    assert 'api_key=os.environ["TOKENPOST_API_KEY"]' in text


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8123/v1"),
        ("0.0.0.0", "http://127.0.0.1:8123/v1"),
        ("::", "http://[::1]:8123/v1"),
        ("::1", "http://[::1]:8123/v1"),
        ("localhost", "http://localhost:8123/v1"),
    ],
)
def test_the_address_shown_is_one_that_can_be_called(host: str, url: str) -> None:
    assert serving(host).url == url


def test_progress_is_a_line_every_two_seconds_without_a_terminal() -> None:
    out = io.StringIO()
    screen = Screen(Console(file=out, width=80))

    for tenths in range(0, 45, 2):
        screen.working("Loading demo", detail=f"worker-demo: {tenths} of 68 tensors", elapsed_s=tenths / 10)

    lines = out.getvalue().splitlines()
    assert lines[0] == "  Loading demo ... worker-demo: 0 of 68 tensors ..."
    times = [0.0, *(float(line.rpartition("... ")[2].removesuffix(" s")) for line in lines[1:])]
    assert max(after - before for before, after in itertools.pairwise(times)) <= 2.0
    assert "worker-demo: 16 of 68 tensors" in lines[1]
