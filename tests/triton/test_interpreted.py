"""The kernels in processes of their own: in Triton's interpreter, which is chosen at import, and as machine code."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

KINDS = ("store", "decode", "attend", "neighbours", "masks")

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@pytest.mark.parametrize("kind", KINDS)
def test_a_kernel_agrees_with_the_plain_reference_in_the_interpreter(kind: str) -> None:
    run_module("cases", kind, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["89", "90"])
def test_every_kernel_compiles_for_a_gpu_and_fits_its_registers(capability: str, tmp_path: Path) -> None:
    run_module("machine_code", capability, TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(tmp_path))


def run_module(name: str, argument: str, **environment: str) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"tests.triton.{name}", argument],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
