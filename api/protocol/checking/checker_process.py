"""The process that judges constraints: `python -m api.protocol.checking.checker_process`, from stdin to stdout.

A compiler cannot be interrupted from within: a hostile text may take seconds, all memory, or the whole stack. Here it
ends this process and nothing else. The kernel ends it (SIGPROF) when a question has used its processor time.

A frame is its length in four bytes, most significant first, and that many bytes of MessagePack: a question is a list of
constraints; each answer is a verdict. Behind a refusal no further verdict of its question comes.
"""

import gc
import resource
import signal
import sys
import threading
from typing import BinaryIO

import msgspec

from api.protocol.checking.verdicts import Verdict
from api.protocol.structured.compiling import byte_tokenizer
from api.protocol.structured.constraints import Constraint, ConstraintRefused
from api.protocol.structured.judging import judge

# Processor time of one question.
MAX_CPU_S = 0.4
# A generation worker compiles what is accepted here with a stack of at least 8 MB.
_STACK_BYTES = 2 * 1024 * 1024
_MAX_MEMORY_BYTES = 2 * 1024**3
LENGTH_BYTES = 4


def frame_of(message: object) -> bytes:
    """A message with its length before it."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH_BYTES) + body


def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer questions until there are no more."""
    decoder = msgspec.msgpack.Decoder(list[Constraint])
    while length := questions.read(LENGTH_BYTES):
        constraints = decoder.decode(questions.read(int.from_bytes(length)))
        signal.setitimer(signal.ITIMER_PROF, MAX_CPU_S)
        for constraint in constraints:
            verdict = _verdict_on(constraint)
            answers.write(frame_of(verdict))
            answers.flush()
            if verdict.judged is None:
                break
        signal.setitimer(signal.ITIMER_PROF, 0)


def _verdict_on(constraint: Constraint) -> Verdict:
    try:
        return Verdict(judged=judge(constraint))
    except ConstraintRefused as refused:
        return Verdict(reason=str(refused))
    except (MemoryError, RecursionError):
        return Verdict(reason="it is too large, or nested too deeply, to be compiled")


def main() -> None:
    """Serve on the standard streams with a small stack and limited memory."""
    # Ctrl-C reaches all processes of a terminal; this one ends when its parent closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    byte_tokenizer()
    gc.freeze()
    threading.stack_size(_STACK_BYTES)
    server = threading.Thread(target=_serve, args=(sys.stdin.buffer, sys.stdout.buffer))
    server.start()
    server.join()


if __name__ == "__main__":
    main()
