"""The kernels of every instruction set compute what the plain ones do, and each row as if it were alone."""

import shutil
import subprocess
from array import array
from functools import cache
from pathlib import Path

import pytest

import workers.model.native
from storage.errors import SettingInvalid
from workers.model.native import instruction_sets
from workers.model.native.build import Build
from workers.model.native.instruction_sets import INSTRUCTION_SETS, compiler_flags, find_obstacle
from workers.model.native.library import Library
from workers.model.resources.memory_options import InstructionSet

_KERNELS = Path(workers.model.native.__file__).parent / "kernels"
_PROGRAM = Path(__file__).parent / "kernel_check.cpp"
_NAMES = tuple(name for name in INSTRUCTION_SETS if name != "native")
# A compiler for the other architecture, and a program that runs what it makes.
_CROSS_COMPILER, _EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"


@cache
def tools_for(name: InstructionSet) -> tuple[list[str], list[str]]:
    """A compiler of programs for the instruction set and what runs them; skips the test where there is none."""
    if find_obstacle(name) is None:
        compiler = shutil.which("g++") or shutil.which("clang++") or pytest.skip("no C++ compiler")
        return [compiler], []
    if not name.startswith("neon"):
        pytest.skip(f"{name}: {find_obstacle(name)}")
    missing = [tool for tool in (_CROSS_COMPILER, _EMULATOR) if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{name}: no {' and no '.join(missing)} (Debian: apt install g++-aarch64-linux-gnu qemu-user)")
    return [_CROSS_COMPILER, "-static"], [_EMULATOR, "-cpu", "max"]


@pytest.fixture(scope="module")
def logits_of(tmp_path_factory: pytest.TempPathFactory):
    """Runs the checks of an instruction set; the logits of its small model, float32 and bfloat16."""
    folder = tmp_path_factory.mktemp("kernels")

    @cache
    def run(name: InstructionSet) -> "tuple[array[float], array[float]]":
        compiler, emulator = tools_for(name)
        program, output = folder / name, folder / f"{name}.logits"
        command = [*compiler, "-O2", "-std=c++20", "-pthread", "-Wall", "-Werror", *compiler_flags(name)]
        subprocess.run([*command, f"-I{_KERNELS}", str(_PROGRAM), "-o", str(program)], check=True, timeout=300)
        done = subprocess.run([*emulator, program, output], capture_output=True, text=True, timeout=300, check=False)
        assert (done.returncode, done.stdout.strip()) == (0, name), done.stdout + done.stderr
        logits = array("f", output.read_bytes())
        return logits[: len(logits) // 2], logits[len(logits) // 2 :]

    return run


@pytest.mark.parametrize("name", _NAMES)
def test_kernels_agree_with_plain_loops_and_with_the_plain_kernels(name: InstructionSet, logits_of) -> None:
    float32, bfloat16 = logits_of(name)

    plain_float32, plain_bfloat16 = logits_of("plain")
    assert float32 == pytest.approx(plain_float32, rel=1e-4, abs=1e-4)
    # The plain kernels keep activations in float32; others round them.
    assert similarity(bfloat16, plain_bfloat16) > 0.999
    assert similarity(float32, bfloat16) > 0.999


def test_the_native_library_has_a_kernel_of_its_own(library: Library) -> None:
    assert find_obstacle(library.instruction_set) is None  # type: ignore[arg-type]  # one of the names
    assert library.instruction_set in _NAMES


def test_an_instruction_set_that_the_processor_has_not_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / "cpuinfo"
    information.write_text("flags\t\t: fpu avx2 fma f16c bmi1 bmi2 movbe\nFeatures\t: fp asimd\n")
    monkeypatch.setattr(instruction_sets, "_CPU_INFO", information)
    monkeypatch.setattr(instruction_sets.platform, "machine", lambda: "x86_64")

    with pytest.raises(
        SettingInvalid, match=r"avx512-bf16 cannot be used: this processor has no avx512_bf16, avx512bw"
    ):
        Build(tmp_path, "avx512-bf16")
    with pytest.raises(SettingInvalid, match="neon cannot be used: it is for aarch64, and this is x86_64"):
        Build(tmp_path, "neon")
    assert find_obstacle("avx2") is None


def similarity(some: "array[float]", others: "array[float]") -> float:
    """The cosine of the angle between them."""
    dot = sum(a * b for a, b in zip(some, others, strict=True))
    return dot / (sum(a * a for a in some) * sum(b * b for b in others)) ** 0.5
