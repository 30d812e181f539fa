"""Embeddings through the whole platform beside sentence-transformers, in turns on the same cores.

python -m bench.embeddings --peer FOLDER --model FOLDER

The peer computes in float32. Its folder: `pip install --no-deps --target FOLDER sentence-transformers scipy
scikit-learn joblib threadpoolctl cloudpickle narwhals`. It encodes in a process of its own, without HTTP and without a
queue; the platform answers HTTP requests with every job stored. While one works, the other waits.
"""

import argparse
import base64
import json
import math
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx2

from tests.e2e.platform import running_platform

_PEER = """
import json, sys, time
import torch
from sentence_transformers import SentenceTransformer
torch.set_num_threads(int(sys.argv[2]))
model = SentenceTransformer(sys.argv[1], device="cpu")
print(torch.get_num_threads(), flush=True)
for line in sys.stdin:
    batches = json.loads(line)
    began = time.perf_counter()
    vectors = [model.encode(batch) for batch in batches]
    took = time.perf_counter() - began
    print(json.dumps({"seconds": took, "first": vectors[0].tolist()}), flush=True)
"""
_LINE = 1 << 24


class Peer:
    """sentence-transformers in a process that waits for texts."""

    def __init__(self, folder: Path, model: Path, num_threads: int) -> None:
        # Threads wait as those of `tokenpost up` do: with the default of torch, a busy machine slows it down more.
        environment = {"GOMP_SPINCOUNT": "10000"} | dict(os.environ) | {"PYTHONPATH": str(folder)}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _PEER, str(model), str(num_threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            text=True,
        )
        assert self._process.stdout is not None
        self.num_threads = int(self._process.stdout.readline())

    def encode(self, batches: Sequence[Sequence[str]]) -> tuple[float, list[list[float]]]:
        """Seconds for all batches, one after the other, and the vectors of the first."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(batches) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline(_LINE))
        return answer["seconds"], answer["first"]

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


class Client:
    """Asks the platform for embeddings as the openai SDK does: base64, decoded."""

    def __init__(self, url: str, num_callers: int) -> None:
        self._num_callers = num_callers
        self._http = httpx2.Client(base_url=url, timeout=300, limits=httpx2.Limits(max_connections=num_callers))

    def encode(self, batches: Sequence[Sequence[str]]) -> tuple[float, list[list[float]]]:
        """Seconds for all batches, one request each, and the vectors of the first."""
        answers: dict[int, list[list[float]]] = {}
        numbers = iter(range(len(batches)))
        lock = threading.Lock()

        def call() -> None:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                answers[number] = self._ask(batches[number])

        began = time.perf_counter()
        callers = [threading.Thread(target=call) for _ in range(self._num_callers - 1)]
        for caller in callers:
            caller.start()
        call()
        for caller in callers:
            caller.join()
        return time.perf_counter() - began, answers[0]

    def _ask(self, texts: Sequence[str]) -> list[list[float]]:
        body = {"model": "minilm", "input": texts, "encoding_format": "base64", "truncate_prompt_tokens": -1}
        answer = self._http.post("/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        coded = [base64.b64decode(one["embedding"]) for one in answer.json()["data"]]
        return [list(struct.unpack(f"<{len(data) // 4}f", data)) for data in coded]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", type=Path, required=True, help="folder of sentence-transformers")
    parser.add_argument("--model", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the platform")
    parser.add_argument("--threads", type=int, default=2, help="of the platform and of the peer")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    words = [word for word in (options.model / "vocab.txt").read_text().split() if word.isalpha() and len(word) > 3]
    chance = random.Random(1)
    one, mixed = _text(chance, words, 25), [_text(chance, words, chance.randint(3, 190)) for _ in range(64)]
    cases: list[tuple[str, int, list[list[str]]]] = [
        ("1 input of about 30 tokens, one caller", 1, [[one]] * 20),
        ("1 input of about 30 tokens, 16 callers", 16, [[one]] * 64),
        ("64 inputs of mixed length, one caller", 1, [mixed]),
    ]
    with tempfile.TemporaryDirectory() as home:
        peer = Peer(options.peer, options.model, options.threads)
        try:
            with running_platform(
                Path(home) / "home",
                "--model",
                f"minilm={options.model}",
                "--dtype",
                options.dtype,
                num_threads=options.threads,
            ) as platform:
                print(
                    f"sentence-transformers on {peer.num_threads} threads; medians of {options.rounds} rounds in turn"
                )
                print("| | sentence-transformers, inputs/s | platform, inputs/s | ratio | least cosine |")
                print("|---|---|---|---|---|")
                for name, num_callers, batches in cases:
                    client = Client(platform.root_url, num_callers)
                    print(_measured(name, batches, peer.encode, client.encode, options.rounds), flush=True)
        finally:
            peer.stop()


Encode = Callable[[Sequence[Sequence[str]]], tuple[float, list[list[float]]]]


def _measured(name: str, batches: list[list[str]], peer: Encode, platform: Encode, rounds: int) -> str:
    """A row of the table; the ratio is the median of the rounds' own ratios."""
    num_inputs = sum(map(len, batches))
    peer(batches)
    platform(batches)
    theirs, ours, cosines = [], [], []
    for _ in range(rounds):
        seconds, expected = peer(batches)
        theirs.append(num_inputs / seconds)
        seconds, found = platform(batches)
        ours.append(num_inputs / seconds)
        cosines += [_cosine(first, second) for first, second in zip(expected, found, strict=True)]
    ratio = statistics.median(own / other for own, other in zip(ours, theirs, strict=True))
    medians = f"{statistics.median(theirs):.1f} | {statistics.median(ours):.1f}"
    return f"| {name} | {medians} | {ratio:.2f} | {min(cosines):.6f} |"


def _cosine(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(map(float.__mul__, first, second)) / (math.hypot(*first) * math.hypot(*second))


def _text(chance: random.Random, words: Sequence[str], num_words: int) -> str:
    return " ".join(chance.choices(words, k=num_words))


if __name__ == "__main__":
    main()
