"""Programs of `frameworks/`: unmodified clients in processes of their own.

TOKENPOST_FRAMEWORKS_PYTHON names an interpreter that has `openai-agents`, `langchain-openai`, `instructor` and
`llama-index-embeddings-openai`; without it, those that this one has are run.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.platform import bare_environment

FOLDER = Path(__file__).parent / "frameworks"
LIMIT_S = 170
_PYTHON = os.environ.get("TOKENPOST_FRAMEWORKS_PYTHON", sys.executable)


def run_framework(program: str, package: str, base_url: str) -> None:
    """Run the program, which prints `ok` at its end; the test skips where its package is not installed."""
    found = _run("-c", f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)")
    if found.returncode:
        pytest.skip(f"{package} is not installed")
    done = _run(str(FOLDER / f"{program}.py"), base_url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("ok\n")


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [_PYTHON, *arguments], env=bare_environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
