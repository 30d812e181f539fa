"""Our engine behind a bare HTTP server, in one process: what the engine gives over HTTP without the platform.

python -m bench.bare_server --port N --model FOLDER [--dtype float32|bfloat16]
python -m bench.bare_server --port N --empty         tokens out of thin air: how fast server and client are
"""

import argparse
import asyncio
import itertools
import os
from functools import partial
from pathlib import Path

import structlog
import uvloop

from bench.bare_sse import Courier, OnText, serve
from storage.contract import SamplingParams
from storage.process.garbage_collection import spare_the_collector
from workers.engine.engine import Engine
from workers.engine.sequence import SequenceOutput, SequenceRequest
from workers.generation.engine_thread import EngineThread, Loaded, TextTools
from workers.model import load as model
from workers.model.resources.memory_options import LoadLimits

MAX_RUNNING = 64


class EngineGenerator:
    """The engine on its own thread."""

    def __init__(self, folder: Path, dtype: str, courier: Courier) -> None:
        self._courier = courier
        self._numbers = itertools.count()
        self._on_text: dict[str, OnText] = {}
        self._thread = EngineThread(partial(_load, folder, dtype), on_fatal=_end)
        self._thread.start(self._on_step)
        self._thread.loaded.result()

    def submit(self, prompt: list[int], max_tokens: int, on_text: OnText) -> None:
        """Hand the prompt to the engine's thread."""
        name = str(next(self._numbers))
        sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True)

        request = SequenceRequest(sequence_id=name, prompt=tuple(prompt), sampling=sampling)
        self._on_text[name] = on_text
        self._thread.put(lambda engine: engine.add(request))

    def _on_step(self, outputs: list[SequenceOutput]) -> None:
        self._courier.deliver(
            [(self._on_text[one.sequence_id], one.text, len(one.token_ids), one.is_last) for one in outputs]
        )
        for one in outputs:
            if one.is_last:
                del self._on_text[one.sequence_id]


class EmptyGenerator:
    """Tokens as fast as the loop turns."""

    def submit(self, prompt: list[int], max_tokens: int, on_text: OnText) -> None:
        """The next token in the loop's next turn."""
        loop = asyncio.get_running_loop()

        def turn(left: int) -> None:
            on_text(" token", 1, left == 1)
            if left > 1:
                loop.call_soon(turn, left - 1)

        turn(max_tokens)


def _load(folder: Path, dtype: str) -> Loaded:
    # Room for the largest round and for the long prompts; a step may take a whole prompt, as with the peers.
    limits = LoadLimits(max_running=MAX_RUNNING)
    loaded = model.load(
        str(folder), device="cpu", dtype="bfloat16" if dtype == "bfloat16" else "float32", limits=limits
    )
    print(loaded.description, flush=True)
    engine = Engine(loaded.runner, loaded.text, loaded.limits)
    spare_the_collector()
    return Loaded(
        engine=engine,
        manifest=loaded.manifest,
        text=TextTools(token_bytes=loaded.token_bytes, grammars=loaded.grammars),
        device=loaded.device,
        dtype=loaded.dtype,
    )


def _end(error: BaseException) -> None:
    print(f"the engine ended: {error!r}", flush=True)
    os._exit(1)


async def _run(arguments: argparse.Namespace) -> None:
    courier = Courier(asyncio.get_running_loop())
    is_empty = arguments.empty
    generator = EmptyGenerator() if is_empty else EngineGenerator(arguments.model, arguments.dtype, courier)
    await serve(arguments.port, generator)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--empty", action="store_true")
    structlog.configure(processors=[_drop])
    uvloop.run(_run(parser.parse_args()))


def _drop(*_: object) -> str:
    raise structlog.DropEvent


if __name__ == "__main__":
    main()
