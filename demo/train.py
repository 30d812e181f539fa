"""Make the demo model: write its text, build the tokenizer, train for the given minutes, save the folder.

With `--checkpoint FILE` a run that was broken off goes on, with the tokenizer beside the file.
"""

import argparse
import logging
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from demo import corpus, tokenizer, words
from demo.dialog import MESSAGE_END, THINK, THINK_END, Dialog
from demo.muon import Muon
from demo.network import Network, make_config
from demo.texts import CLOSED_WORDS, COMMON_WORDS

NUM_TOKENIZER_DOCUMENTS = 30_000
MIN_PIECE_COUNT = 110
MAX_DOCUMENT_TOKENS = 960
POOL_DOCUMENTS = 3072
MICRO_BATCH_TOKENS = 3072
MICRO_BATCHES = 2
WARMUP_STEPS = 50
FLAT_SHARE = 0.3
CHECKPOINT_EVERY_S = 240
MAX_SIZE_BYTES = 12_000_000

# A key of a flat JSON object with the marks before its value.
_KEYS = re.compile(r'"([^"]*)": \[?"?')

log = logging.getLogger("demo.train")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What the command line says: see its help. The clock is CPU time: pauses and busy neighbours do not count."""

    minutes: float
    out: Path
    processes: int
    seed: int
    checkpoint: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """One document as text; `keys` are the places of what a grammar would write, which carry no loss."""

    text: str
    keys: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One document as token ids, and which of them the model is to foretell."""

    ids: list[int]
    is_target: list[bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Documents of like length: ids [num_seqs, num_tokens], and the flat positions and tokens to foretell."""

    ids: Tensor
    positions: Tensor
    targets: Tensor


def build_tokenizer() -> Tokenizer:
    """The tokenizer of a fixed sample of the corpus, the same on every run."""
    rng = Random(0)
    texts = (write_document(corpus.document(rng)).text for _ in range(NUM_TOKENIZER_DOCUMENTS))
    # Each token has to be spelled and reversed often, so words that are never drawn for that are none.
    spelled = {word.lower() for word in CLOSED_WORDS}
    contents = {word.lower() for word in words.NAMES + words.NOUNS + COMMON_WORDS}
    return tokenizer.build(texts, words=spelled - contents, min_count=MIN_PIECE_COUNT)


def restore_tokenizer(checkpoint: Path | None) -> Tokenizer:
    """The tokenizer beside the checkpoint, made once: a resumed run keeps its ids even when the mixture changed."""
    if checkpoint is None:
        return build_tokenizer()
    file = checkpoint.with_name("tokenizer.json")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        build_tokenizer().save(str(file))
    return Tokenizer.from_file(str(file))


def write_document(document: Dialog | str) -> Written:
    """The document as training text; a plain story ends with the end-of-text token."""
    if isinstance(document, str):
        return Written(text=document + tokenizer.END_OF_TEXT)
    text = document.text()
    contents = [message.content for message in document.messages if message.are_keys_set]
    keys = [span for content in contents for span in _key_spans(text.index(content), content)]
    return Written(text=text, keys=tuple(keys))


def _key_spans(start: int, content: str) -> list[tuple[int, int]]:
    """Where the keys of a flat JSON object stand in a text, with the marks up to their values."""
    spans = [(start + found.start(1), start + found.end()) for found in _KEYS.finditer(content)]
    return [(start, spans[0][1]), *spans[1:]]


def mark_targets(ids: list[int], encoder: Tokenizer) -> list[bool]:
    """Which tokens carry loss: every answer with its thought and its end token, or all of a plain text."""
    start, end, think, think_end, assistant = (
        encoder.token_to_id(token)
        for token in (tokenizer.MESSAGE_START, MESSAGE_END, THINK, THINK_END, tokenizer.ASSISTANT)
    )
    if start not in ids:
        return [True] * len(ids)
    marks, content_from = [], len(ids)
    for index, token in enumerate(ids):
        if token == assistant and ids[index - 1] == start:
            content_from = index + 2  # the role is followed by a newline
            if ids[content_from] == think:
                # The prompt opens the thought and a newline, or closes it without one: two more newlines.
                content_from += 6 if ids[content_from + 3] == think_end else 2
        marks.append(index >= content_from)
        if token == end:
            content_from = len(ids)
    return marks


def encode(written: list[Written], encoder: Tokenizer) -> list[Example]:
    """The documents as token ids with their targets; too long ones are left out."""
    encodings = encoder.encode_batch([one.text for one in written], add_special_tokens=False)
    examples = []
    for one, encoding in zip(written, encodings, strict=True):
        if len(encoding.ids) > MAX_DOCUMENT_TOKENS:
            continue
        marks = mark_targets(encoding.ids, encoder)
        if one.keys:
            places = [first for first, _ in encoding.offsets]
            marks = [
                mark and not any(first <= place < last for first, last in one.keys)
                for mark, place in zip(marks, places, strict=True)
            ]
        examples.append(Example(ids=encoding.ids, is_target=marks))
    return examples


def batches(encoder: Tokenizer, rng: Random) -> Iterator[Batch]:
    """Fresh documents forever, grouped by length so that padding stays small."""
    while True:
        examples = encode([write_document(corpus.document(rng)) for _ in range(POOL_DOCUMENTS)], encoder)
        groups: list[list[Example]] = [[]]
        for example in sorted(examples, key=lambda one: len(one.ids)):
            if len(example.ids) * (len(groups[-1]) + 1) > MICRO_BATCH_TOKENS:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        yield from map(_pad, groups)


def train(encoder: Tokenizer, network: Network, plan: Plan, rank: int) -> Network:
    """The trained network; with a checkpoint file the training goes on from there and is saved there."""
    run = Run(network, plan, is_first=rank == 0)
    for layer in network.layers:
        layer.compile(dynamic=True)
    data = batches(encoder, Random(f"{plan.seed} {run.num_steps} {rank}"))
    while run.progress < 1:
        run.step([next(data) for _ in range(MICRO_BATCHES)])
    run.save()
    return network


class Run:
    """One training run: its optimisers, its clock and its checkpoint. Only the first process reports and saves."""

    def __init__(self, network: Network, plan: Plan, *, is_first: bool) -> None:
        self.network, self.plan, self.is_first = network, plan, is_first
        named = dict(network.named_parameters())
        hidden = [weight for name, weight in named.items() if weight.ndim == 2 and "embed" not in name]
        rest = [weight for name, weight in named.items() if weight.ndim == 1 or "embed" in name]
        muon = Muon(hidden, lr=0.02, momentum=0.95, weight_decay=0.02)
        adam = torch.optim.AdamW(rest, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0)
        self.optimisers: list[torch.optim.Optimizer] = [muon, adam]
        self.peaks = [0.02, 4e-3]
        self.num_steps = self.num_tokens = 0
        self.mean_loss = 7.0
        self.cpu_before_s = 0.0
        if plan.checkpoint is not None and plan.checkpoint.exists():
            self._load(plan.checkpoint)
        self.saved_s = time.monotonic()
        self.progress = self.cpu_s() / (plan.minutes * 60)

    def cpu_s(self) -> float:
        """CPU seconds of this process, those before the checkpoint included."""
        return self.cpu_before_s + time.process_time()

    def step(self, micro_batches: list[Batch]) -> None:
        """One update from these batches, and those of the other processes."""
        rate = min(1.0, (self.num_steps + 1) / WARMUP_STEPS, max(0.0, (1 - self.progress) / (1 - FLAT_SHARE)))
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            optimiser.param_groups[0]["lr"] = peak * rate
        loss = sum(self._backward(batch) for batch in micro_batches)
        self._average(loss, micro_batches)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.num_steps += 1
        self._report()

    def _average(self, loss: float, micro_batches: list[Batch]) -> None:
        """Make the gradients means over the targets of all processes, and the clock the same for all."""
        gradients = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
        num_targets = sum(len(batch.targets) for batch in micro_batches)
        num_tokens = sum(batch.ids.numel() for batch in micro_batches)
        sums = torch.tensor([loss, num_targets, num_tokens, self.cpu_s()], dtype=torch.float64)
        if self.plan.processes > 1:
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(flat)
            distributed.all_reduce(sums)
            for gradient, part in zip(gradients, torch.split(flat, [one.numel() for one in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))
        loss, num_targets, num_tokens, cpu_s = sums.tolist()
        torch._foreach_div_(gradients, num_targets)
        self.num_tokens += int(num_tokens)
        self.mean_loss += 0.02 * (loss / num_targets - self.mean_loss)
        self.progress = cpu_s / self.plan.processes / (self.plan.minutes * 60)

    def save(self) -> None:
        """Write weights, optimisers and clock, whole or not at all."""
        self.saved_s = time.monotonic()
        if self.plan.checkpoint is None or not self.is_first:
            return
        state = {
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "clock": [self.num_steps, self.num_tokens, self.mean_loss, self.cpu_s()],
        }
        unfinished = self.plan.checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self.plan.checkpoint)

    def _load(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint)
        self.network.load_state_dict(state["network"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.num_steps, self.num_tokens, self.mean_loss, self.cpu_before_s = state["clock"]

    def _backward(self, batch: Batch) -> float:
        hidden = self.network(batch.ids).flatten(0, 1)[batch.positions]
        loss = self.network.loss(hidden, batch.targets)
        torch.autograd.backward(loss)
        return loss.item()

    def _report(self) -> None:
        if self.num_steps % 25 == 0 and self.is_first:
            log.info(
                "step %d loss %.4f tokens %.2fM, %.0f of %.0f CPU s",
                self.num_steps,
                self.mean_loss,
                self.num_tokens / 1e6,
                self.cpu_s(),
                self.plan.minutes * 60,
            )
        if time.monotonic() - self.saved_s > CHECKPOINT_EVERY_S:
            self.save()


def export(network: Network, config: Qwen3Config, encoder: Tokenizer, folder: Path) -> None:
    """Write the folder that transformers and the platform load, after checking that both networks agree."""
    model = Qwen3ForCausalLM(config)
    model.model.load_state_dict(network.state_dict())
    model.tie_weights()
    _check_agreement(network, model)
    ends = {"eos_token_id": config.eos_token_id, "pad_token_id": config.pad_token_id}
    model.generation_config = GenerationConfig.from_dict({**ends, "do_sample": False})
    model.bfloat16().save_pretrained(folder)
    tokenizer.save(encoder, folder, max_length=config.max_position_embeddings)
    size_bytes = (folder / "model.safetensors").stat().st_size
    assert size_bytes <= MAX_SIZE_BYTES, size_bytes


def main() -> None:
    """Train from the command line."""
    plan = Plan(**vars(_parse()))
    encoder = restore_tokenizer(plan.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (plan, encoder.to_str(), f"file://{folder}/meeting")
        spawn(run_process, arguments, nprocs=plan.processes)  # type: ignore[no-untyped-call]  # torch leaves it untyped


def run_process(rank: int, plan: Plan, tokenizer_text: str, meeting: str) -> None:
    """One of the training processes; the first also writes the model folder."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    if plan.processes > 1:
        distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=plan.processes)
    encoder = Tokenizer.from_str(tokenizer_text)
    ends = {"eos_token_id": tokenizer.SPECIAL_TOKENS.index(MESSAGE_END)}
    config = make_config(encoder.get_vocab_size(), pad_token_id=0, **ends)
    torch.manual_seed(plan.seed)
    network = train(encoder, Network(config), plan, rank)
    if rank == 0:
        plan.out.mkdir(parents=True, exist_ok=True)
        export(network, config, encoder, plan.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=150, help="of CPU time, for each process")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "workers" / "model" / "demo")
    parser.add_argument("--processes", type=int, default=2, help="each takes a core and its own batches")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, default=None, help="is written every few minutes")
    return parser.parse_args()


def _pad(examples: list[Example]) -> Batch:
    width = max(len(example.ids) for example in examples)
    width += -width % 16
    ids = torch.tensor([example.ids + [0] * (width - len(example.ids)) for example in examples])
    places = [
        (row * width + index - 1, example.ids[index])
        for row, example in enumerate(examples)
        for index in range(1, len(example.ids))
        if example.is_target[index]
    ]
    positions, targets = torch.tensor(places).T
    return Batch(ids=ids, positions=positions, targets=targets)


def _check_agreement(network: Network, model: Qwen3ForCausalLM) -> None:
    ids = torch.randint(3, 256, (2, 40), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = network(ids, torch.float32), model.model(ids).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-3, rtol=1e-3), (ours - theirs).abs().max()


if __name__ == "__main__":
    main()
