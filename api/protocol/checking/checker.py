"""One checker process, as its parent sees it: started when it is first asked, and again after it has ended."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence

import msgspec

from api.protocol.checking.checker_process import LENGTH_BYTES, frame_of
from api.protocol.checking.verdicts import Verdict
from api.protocol.structured.constraints import Constraint

# Far more than its processor time: only a machine that stands still takes so long.
_TIMEOUT_S = 20.0
_TOO_LONG = "it takes too long to compile"
_TOO_LARGE = "it is too large, or nested too deeply, to be compiled"
# How a compiler ends that has used up its stack or its memory.
_CRASHES = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS, -signal.SIGKILL)

_decode = msgspec.msgpack.Decoder(Verdict).decode


class CheckerFailed(Exception):
    """The process ended in a way that says nothing about the constraint."""


class Checker:
    """Asks one question at a time."""

    def __init__(self) -> None:
        self._process: Process | None = None

    async def ask(self, constraints: Sequence[Constraint]) -> list[Verdict]:
        """Verdicts in the order of the constraints, up to the first refusal. Raises CheckerFailed and TimeoutError."""
        process = await self._running()
        verdicts: list[Verdict] = []
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(frame_of(constraints))
                while len(verdicts) < len(constraints) and not (verdicts and verdicts[-1].judged is None):
                    length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES))
                    verdicts.append(_decode(await process.stdout.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return [*verdicts, await self._verdict_of_end(process)]
        except BaseException:
            # What it would answer now belongs to no question.
            await self.stop()
            raise
        return verdicts

    async def _running(self) -> Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # no modules from the working folder
                "-m",
                "api.protocol.checking.checker_process",
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
        return self._process

    async def _verdict_of_end(self, process: Process) -> Verdict:
        self._process = None
        code = await process.wait()
        if code == -signal.SIGPROF:
            return Verdict(reason=_TOO_LONG)
        if code in _CRASHES:
            return Verdict(reason=_TOO_LARGE)
        raise CheckerFailed(f"the checker process ended with {code}")

    async def stop(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            if process.returncode is None:
                process.kill()
            await process.wait()
