"""OpenVINO GenAI's continuous batching behind the same bare HTTP server; runs in OpenVINO's own environment.

python -m bench.openvino_server --port N --model FOLDER --dtype float32|bfloat16
"""

import argparse
import asyncio
import itertools
import threading
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from bench.bare_sse import Courier, OnText, serve

_CACHE_GB = 2


class Request:
    """One prompt, and its text as it grows."""

    def __init__(self, prompt: list[int], max_tokens: int, on_text: OnText) -> None:
        self.prompt = prompt
        self.on_text = on_text
        self.left = max_tokens
        self.config = genai.GenerationConfig()
        self.config.max_new_tokens = max_tokens
        self.config.ignore_eos = True
        self.config.do_sample = False
        self.stream = DecodeStream(skip_special_tokens=True)


class OpenVinoGenerator:
    """A pipeline stepped on a thread of its own."""

    def __init__(self, folder: Path, dtype: str, courier: Courier) -> None:
        scheduler = genai.SchedulerConfig()
        scheduler.cache_size = _CACHE_GB
        scheduler.max_num_seqs = 64
        scheduler.enable_prefix_caching = False
        scheduler.dynamic_split_fuse = True
        scheduler.max_num_batched_tokens = 4096
        precision = {"float32": "f32", "bfloat16": "bf16"}[dtype]
        properties = {"INFERENCE_PRECISION_HINT": precision, "KV_CACHE_PRECISION": precision}
        self._pipeline = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._courier = courier
        self._numbers = itertools.count()
        self._inbox: deque[Request] = deque()
        self._wake = threading.Semaphore(0)
        self._running: list[tuple[Any, Request]]  # Any: the library declares no types = []
        threading.Thread(target=self._run, daemon=True).start()

    def submit(self, prompt: list[int], max_tokens: int, on_text: OnText) -> None:
        """Hand the prompt to the pipeline's thread."""
        self._inbox.append(Request(prompt, max_tokens, on_text))
        self._wake.release()

    def _run(self) -> None:
        while True:
            if not self._inbox and not self._pipeline.has_non_finished_requests():
                self._wake.acquire()
            while self._inbox:
                self._add(self._inbox.popleft())
            if self._pipeline.has_non_finished_requests():
                self._pipeline.step()
                self._courier.deliver(self._read())

    def _add(self, request: Request) -> None:
        ids = openvino.Tensor(np.array([request.prompt], dtype=np.int64))
        handle = self._pipeline.add_request(next(self._numbers), ids, request.config)
        self._running.append((handle, request))

    def _read(self) -> list[tuple[OnText, str, int, bool]]:
        texts = []
        for handle, request in self._running:
            if handle.can_read():
                token_ids = [token for output in handle.read().values() for token in output.generated_ids]
                text = "".join(request.stream.step(self._tokenizer, token) or "" for token in token_ids)
                request.left -= len(token_ids)
                texts.append((request.on_text, text, len(token_ids), request.left <= 0))
        self._running = [(handle, request) for handle, request in self._running if request.left > 0]
        return texts


async def _run(arguments: argparse.Namespace) -> None:
    courier = Courier(asyncio.get_running_loop())
    await serve(arguments.port, OpenVinoGenerator(arguments.model, arguments.dtype, courier))


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
