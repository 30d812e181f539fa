"""The instruction sets that the kernels are written for, and which of them this processor has."""

import platform
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from workers.model.resources.memory_options import InstructionSet

INSTRUCTION_SETS: tuple[InstructionSet, ...] = get_args(InstructionSet)

_CPU_INFO = Path("/proc/cpuinfo")
_X86 = ("x86_64", "AMD64")
_ARM = ("aarch64", "arm64")
_AVX2 = frozenset({"avx2", "fma", "f16c", "bmi1", "bmi2", "movbe"})
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """The flags that name an instruction set to the compiler, and the processors that have it.

    machines: names of the architecture; empty: any
    features: as Linux names them
    """

    flags: tuple[str, ...]
    machines: tuple[str, ...] = ()
    features: frozenset[str] = frozenset()


_TARGETS: dict[InstructionSet, _Target] = {
    "native": _Target(flags=("-march=native" if platform.machine() in _X86 else "-mcpu=native",)),
    "amx": _Target(
        flags=("-march=x86-64-v4", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
        machines=_X86,
        features=_AVX512 | {"avx512_bf16", "amx_tile", "amx_bf16"},
    ),
    "avx512-bf16": _Target(
        flags=("-march=x86-64-v4", "-mavx512bf16"), machines=_X86, features=_AVX512 | {"avx512_bf16"}
    ),
    "avx512": _Target(flags=("-march=x86-64-v4",), machines=_X86, features=_AVX512),
    "avx2": _Target(flags=("-march=x86-64-v3",), machines=_X86, features=_AVX2),
    "neon-bf16": _Target(flags=("-march=armv8.2-a+bf16",), machines=_ARM, features=frozenset({"bf16"})),
    "neon": _Target(flags=("-march=armv8-a",), machines=_ARM),
    "plain": _Target(flags=()),
}


def compiler_flags(name: InstructionSet) -> tuple[str, ...]:
    """The flags of GCC and clang that name it."""
    return _TARGETS[name].flags


def find_obstacle(name: InstructionSet) -> str | None:
    """Why this processor cannot run what is compiled for it; None where it can."""
    target = _TARGETS[name]
    if target.machines and platform.machine() not in target.machines:
        return f"it is for {target.machines[0]}, and this is {platform.machine()}"
    missing = sorted(target.features - _features())
    return f"this processor has no {', '.join(missing)}" if missing else None


def processor() -> str:
    """The processor's name and features: a home folder may be shared by machines that differ."""
    lines = {line for line in _cpu_info() if line.startswith(("model name", "flags", "Features"))}
    return "\n".join(sorted(lines)) or platform.processor()


def _features() -> frozenset[str]:
    lines = (line.partition(":") for line in _cpu_info() if line.startswith(("flags", "Features")))
    return frozenset(name for _, _, names in lines for name in names.split())


def _cpu_info() -> list[str]:
    return _CPU_INFO.read_text().splitlines() if _CPU_INFO.is_file() else []
