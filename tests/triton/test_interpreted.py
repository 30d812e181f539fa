"""The kernels in Triton's interpreter, which must be chosen before Triton is imported: hence a process of its own."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

KINDS = ("store", "decode", "attend", "neighbours")

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_agrees_with_the_plain_reference_in_the_interpreter(kind: str) -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}

    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.triton.cases", kind],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )

    assert run.returncode == 0, run.stderr
