"""Cost of one token event in each protocol's fold, and of one accepted request: `python -m bench.fold`.

A log of 20,000 deltas is folded five times; the table shows the best pass in microseconds an event (CPU time).
"""

import json
import time
from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from api.protocol.chat.request import ChatRequest
from api.protocol.kinds import fold_of, prepare
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.responses.included import INCLUDED_LOGPROBS
from storage.contract import (
    Candidate,
    EntryKind,
    EventLogprobs,
    JobHeader,
    JobKind,
    LogEntry,
    TokenEvent,
    TokenLogprobs,
)
from storage.model_manifest import ModelManifest

NUM_EVENTS = 20_000
NUM_REQUESTS = 2_000
PASSES = 5
TEXTS = {"ascii": " token", "unicode": " wörd"}
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def best_us(run: Callable[[], None], count: int) -> float:
    """Microseconds of CPU time of one of `count` repetitions inside `run`, in its best pass."""
    best = float("inf")
    for _ in range(PASSES):
        began = time.process_time()
        run()
        best = min(best, time.process_time() - began)
    return best / count * 1e6


def fold_cost(kind: JobKind, text: str, request: dict[str, object], logprobs: EventLogprobs | None = None) -> float:
    """Microseconds a delta."""
    header = JobHeader(
        job_id="resp_0123", kind=kind, model="demo", created_at=1_700_000_000, request=request, context={}
    )
    event = TokenEvent(choice=0, token_ids=(1,), text=text, logprobs=logprobs)
    log = [LogEntry(attempt=1, seq=seq, kind=EntryKind.TOKENS, tokens=(event,)) for seq in range(1, NUM_EVENTS + 1)]

    def run() -> None:
        fold = fold_of(header)
        fold.open()
        for entry in log:
            fold.feed(entry)

    return best_us(run, NUM_EVENTS)


def measured_cost(kind: JobKind) -> float:
    """Microseconds a delta with log probabilities and five alternatives."""
    top = tuple(Candidate(rank, b" token", -0.12345 * rank) for rank in range(5))
    logprobs = EventLogprobs(tokens=(TokenLogprobs(top[0], top),))
    return fold_cost(kind, " token", {"logprobs": 5, "include": [INCLUDED_LOGPROBS]}, logprobs)


def byte_tools() -> PromptTools:
    """Prompt tools of a byte tokenizer: its cost is linear in the text, as everyone's."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    manifest = ModelManifest(
        model="demo",
        context_length=4096,
        tokenizer_json=tokenizer.to_str(),
        chat_template=TEMPLATE,
        special_tokens={},
        capabilities={},
    )
    return PromptTools(manifest)


def request_cost() -> tuple[float, float]:
    """Microseconds to parse a short chat, and to prepare it."""
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    body = json.dumps({"model": "demo", "messages": messages, "temperature": 0.7, "max_tokens": 64}).encode()
    request, tools = ChatRequest.parse(body), byte_tools()

    def parse() -> None:
        for _ in range(NUM_REQUESTS):
            ChatRequest.parse(body)

    def prepare_() -> None:
        for _ in range(NUM_REQUESTS):
            prepare(request, tools, seed=1)

    return best_us(parse, NUM_REQUESTS), best_us(prepare_, NUM_REQUESTS)


def main() -> None:
    """Prints the table."""
    table = Table("what", "us each")
    for kind in JobKind:
        for name, text in TEXTS.items():
            table.add_row(f"fold, {kind}, {name}", f"{fold_cost(kind, text, {}):.2f}")
        table.add_row(f"fold, {kind}, log probabilities", f"{measured_cost(kind):.2f}")
    parse_us, prepare_us = request_cost()
    table.add_row("parse a chat request", f"{parse_us:.1f}")
    table.add_row("prepare a chat request", f"{prepare_us:.1f}")
    Console().print(table)


if __name__ == "__main__":
    main()
