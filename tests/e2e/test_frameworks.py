"""Agent frameworks, unmodified, against the whole platform.

They run in processes of their own, see `framework_programs.py`. TOKENPOST_FRAMEWORKS_NODE names a folder whose
`node_modules` have `ai`, `@ai-sdk/openai` and `zod`.
"""

import os
import shutil
import subprocess

import pytest

from tests.e2e.framework_programs import FOLDER, LIMIT_S, run_framework
from tests.e2e.platform import Platform, bare_environment

# The package that each program needs.
PROGRAMS = {
    "agents_tools": "agents",
    "agents_session": "agents",
    "langchain_tools": "langchain_openai",
    "instructor_tools": "instructor",
}
NODE_FOLDER = os.environ.get("TOKENPOST_FRAMEWORKS_NODE")


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_framework_works(platform: Platform, program: str) -> None:
    run_framework(program, PROGRAMS[program], platform.base_url)


def test_the_ai_sdk_of_vercel_calls_tools_and_makes_objects(platform: Platform) -> None:
    node = shutil.which("node")
    if node is None or NODE_FOLDER is None:
        pytest.skip("TOKENPOST_FRAMEWORKS_NODE names no folder, or node is not installed")

    command = [node, str(FOLDER / "vercel_tools.mjs"), platform.base_url, NODE_FOLDER]
    done = subprocess.run(command, env=bare_environment(), capture_output=True, text=True, timeout=LIMIT_S, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("ok\n")
