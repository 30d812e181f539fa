"""What the kernel says about a thread's turns."""

import ctypes
import os
import platform
import struct
import threading

import pytest

from storage.process.thread_timeslice import take_long_turns

_SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}.get(platform.machine())

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux"
    or _SCHED_GETATTR is None
    or tuple(map(int, os.uname().release.split(".")[:2])) < (6, 12),
    reason="turns have a length from Linux 6.12 on",
)


def test_a_thread_and_those_it_starts_take_long_turns_and_nobody_else() -> None:
    turns_ns: dict[str, int] = {}

    def note(name: str) -> None:
        turns_ns[name] = _turn_ns()

    def work() -> None:
        take_long_turns()
        note("thread")
        _join(threading.Thread(target=note, args=("its own",)))

    nice = os.getpriority(os.PRIO_PROCESS, 0)
    _join(threading.Thread(target=work))
    _join(threading.Thread(target=note, args=("other",)))

    assert turns_ns["thread"] == turns_ns["its own"] == 10_000_000
    assert turns_ns["other"] < 10_000_000
    assert os.getpriority(os.PRIO_PROCESS, 0) == nice


def _join(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


def _turn_ns() -> int:
    """Nanoseconds that the kernel gives this thread at a time."""
    attributes = ctypes.create_string_buffer(48)
    assert ctypes.CDLL(None, use_errno=True).syscall(_SCHED_GETATTR, 0, attributes, 48, 0) == 0
    return int(struct.unpack_from("=Q", attributes, 24)[0])
