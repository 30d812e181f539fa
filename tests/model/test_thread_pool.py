"""The thread pool of the native library alone: a program that distributes numbers instead of a model."""

import shutil
import subprocess
from pathlib import Path

import pytest

import workers.model.native

_KERNELS = Path(workers.model.native.__file__).parent / "kernels"
_PROGRAM = Path(__file__).parent / "thread_pool_stress.cpp"
_COMPILER = shutil.which("g++") or shutil.which("clang++")

pytestmark = pytest.mark.skipif(_COMPILER is None, reason="no C++ compiler")


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    built = tmp_path_factory.mktemp("thread_pool") / "stress"
    command = [_COMPILER, "-O2", "-std=c++20", "-pthread", f"-I{_KERNELS}", str(_PROGRAM), "-o", str(built)]
    subprocess.run(command, check=True, timeout=120)
    return built


@pytest.mark.parametrize(("num_threads", "num_spins"), [(1, 100), (2, 5000), (4, 0), (5, 50)])
def test_everything_is_done_once_and_in_order_however_late_a_thread_comes(program, num_threads, num_spins):
    done = subprocess.run(
        [program, str(num_threads), "1000", str(num_spins)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "157614"), done.stdout + done.stderr
