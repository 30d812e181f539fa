"""Agent frameworks, unmodified, against the whole platform.

They run in processes of their own. TOKENPOST_FRAMEWORKS_PYTHON names an interpreter that has `openai-agents`,
`langchain-openai` and `instructor`; without it, those that this one has are run. TOKENPOST_FRAMEWORKS_NODE names a
folder whose `node_modules` have `ai`, `@ai-sdk/openai` and `zod`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.platform import Platform, bare_environment

FOLDER = Path(__file__).parent / "frameworks"
# The package that each program needs.
PROGRAMS = {
    "agents_tools": "agents",
    "agents_session": "agents",
    "langchain_tools": "langchain_openai",
    "instructor_tools": "instructor",
}
PYTHON = os.environ.get("TOKENPOST_FRAMEWORKS_PYTHON", sys.executable)
NODE_FOLDER = os.environ.get("TOKENPOST_FRAMEWORKS_NODE")
_LIMIT_S = 170


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, *arguments], env=bare_environment(), capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_framework_works(platform: Platform, program: str) -> None:
    package = PROGRAMS[program]
    found = _run("-c", f"import importlib.util as u, sys; sys.exit(u.find_spec({package!r}) is None)")
    if found.returncode:
        pytest.skip(f"{package} is not installed")

    done = _run(str(FOLDER / f"{program}.py"), platform.base_url)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("ok\n")


def test_the_ai_sdk_of_vercel_calls_tools_and_makes_objects(platform: Platform) -> None:
    node = shutil.which("node")
    if node is None or NODE_FOLDER is None:
        pytest.skip("TOKENPOST_FRAMEWORKS_NODE names no folder, or node is not installed")

    command = [node, str(FOLDER / "vercel_tools.mjs"), platform.base_url, NODE_FOLDER]
    done = subprocess.run(
        command, env=bare_environment(), capture_output=True, text=True, timeout=_LIMIT_S, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("ok\n")
