"""The examples of the README, of the pages in docs/ and of examples/ run when they are pasted."""

import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli.main import app
from tests.e2e.platform import Platform, bare_environment
from tests.forking import ForkedProcess

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = (
    "README.md",
    "docs/sampling.md",
    "docs/idempotency.md",
    "docs/queueing.md",
    "docs/tools.md",
    "docs/conversations.md",
    "docs/batches.md",
    "docs/files.md",
)
_WRITTEN_URL = "http://127.0.0.1:8000/v1"
_LIMIT_S = 120


def blocks_of(language: str) -> list[str]:
    """The fenced blocks of a language in the pages, in order, for the bundled model: a toy is enough here."""
    text = "\n".join((ROOT / page).read_text() for page in PAGES)
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block.replace('"smollm2"', '"demo"') for block in blocks]


PYTHON_BLOCKS = blocks_of("python")
CURL_BLOCKS = [block for block in blocks_of("sh") if "curl " in block]
EXAMPLES = sorted(path for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".sh"))


def output_of(command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a command printed; it must succeed."""
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_readme_shows_every_way() -> None:
    assert len(PYTHON_BLOCKS) == 15
    assert len(CURL_BLOCKS) == 3


def output_of_script(script: Path, folder: Path) -> str:
    """What a Python program printed; it must succeed without a warning. Its imports are there already."""
    stdout, stderr = folder / "stdout", folder / "stderr"
    process = ForkedProcess(
        _run_script, script, folder=folder, environment=bare_environment(), stdout=stdout, stderr=stderr
    )
    try:
        code = process.wait(_LIMIT_S)
    finally:
        process.kill()
    assert code == 0, stdout.read_text() + stderr.read_text()
    return stdout.read_text()


def _run_script(script: Path) -> None:
    warnings.simplefilter("error")
    sys.argv = [str(script)]
    runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("number", range(len(PYTHON_BLOCKS)))
def test_python_of_the_readme_runs(platform: Platform, tmp_path: Path, number: int) -> None:
    block = PYTHON_BLOCKS[number]
    assert _WRITTEN_URL in block
    script = tmp_path / "pasted.py"
    script.write_text(block.replace(_WRITTEN_URL, platform.base_url))

    out = output_of_script(script, tmp_path)

    assert out.strip()
    assert "None" not in out


@pytest.mark.parametrize("number", range(len(CURL_BLOCKS)))
def test_curl_of_the_readme_runs(platform: Platform, tmp_path: Path, number: int) -> None:
    block = CURL_BLOCKS[number]
    assert _WRITTEN_URL in block

    out = output_of(["sh", "-euc", block.replace(_WRITTEN_URL, platform.base_url)], tmp_path, bare_environment())

    assert '"error":{' not in out.replace(" ", "")
    assert '"demo"' in out
    assert ("data: [DONE]" in out) == ("stream" in block)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(platform: Platform, tmp_path: Path, example: Path) -> None:
    command = ["sh", str(example)] if example.suffix == ".sh" else [sys.executable, "-W", "error", str(example)]
    environment = bare_environment() | {"TOKENPOST_BASE_URL": platform.base_url, "TOKENPOST_MODEL": "demo"}

    out = output_of(command, tmp_path, environment)

    assert out.strip()
    if example.suffix == ".sh":
        assert out.count("data: [DONE]") == 2


def test_what_up_shows_works_when_pasted(platform: Platform, tmp_path: Path) -> None:
    lines = (platform.home / "screen.txt").read_text().splitlines()
    [curl] = [line for line in lines if line.startswith("curl ")]
    start = lines.index("from openai import OpenAI")
    script = tmp_path / "pasted.py"
    script.write_text("\n".join(lines[start : start + 4]))

    answer = output_of(["sh", "-c", curl], tmp_path, bare_environment())
    text = output_of([sys.executable, str(script)], tmp_path, bare_environment())

    assert '"object":"response"' in answer
    assert text.strip()


def test_every_command_of_the_readme_exists() -> None:
    reported = set(
        re.findall(r"tokenpost ((?:up|serve|worker|ps|doctor|jobs|models|keys|webhooks|db)(?: [a-z]+)?)", README)
    )
    groups = {"jobs", "models", "keys", "webhooks", "db"}
    for words in sorted({tuple(one.split()[: 1 + (one.split()[0] in groups)]) for one in reported}):
        assert CliRunner().invoke(app, [*words, "--help"]).exit_code == 0, words


def test_every_example_is_in_its_readme() -> None:
    reported = (ROOT / "examples" / "README.md").read_text()

    assert [path.name for path in EXAMPLES if f"`{path.name}`" not in reported] == []
