"""How long a turn the kernel gives a thread on a processor that others want too."""

import ctypes
import os
import platform
import struct

import structlog

# Numbers of sched_setattr(2), which no library wraps. Source: the kernel's syscall tables.
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
# struct sched_attr, first version: size, policy, flags, nice, priority, runtime, deadline, period.
_ATTRIBUTES = struct.Struct("=IIQiIQQQ")
_TURN_NS = 10_000_000

log = structlog.get_logger()


def take_long_turns() -> None:
    """Make the turns of this thread, and of those it starts, longer than others' are (Linux 6.12 and later).

    A thread of longer turns gets no more of the processor, but lets those of shorter ones in first (EEVDF): API, Redis
    and publisher have little to do a step, and others wait for it; the model computes all the time.
    """
    number = _SCHED_SETATTR.get(platform.machine())
    if platform.system() != "Linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, _TURN_NS, 0, 0)
    if ctypes.CDLL(None, use_errno=True).syscall(number, 0, wanted, 0) != 0:
        # Nothing depends on it but speed on a busy machine.
        log.info("turns_unchanged", reason=os.strerror(ctypes.get_errno()))
