"""Make the demo model: write its text, build the tokenizer, train for the given minutes, save the folder.

With `--start FOLDER` the training begins from the weights and the tokenizer of an exported model.
"""

import argparse
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

from demo import corpus, tokenizer, words
from demo.muon import Muon
from demo.network import Network, make_config

NUM_TOKENIZER_DOCUMENTS = 30_000
MIN_PIECE_COUNT = 30
MAX_DOCUMENT_TOKENS = 900
POOL_DOCUMENTS = 3072
MICRO_BATCH_TOKENS = 4096
MICRO_BATCHES = 2
WARMUP_STEPS = 50
FLAT_SHARE = 0.3
CHECKPOINT_EVERY_S = 240
MAX_SIZE_BYTES = 12_000_000

log = logging.getLogger("demo.train")


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
    texts = []
    for _ in range(NUM_TOKENIZER_DOCUMENTS):
        document = corpus.document(rng)
        parts = [document] if isinstance(document, str) else [part for m in document for part in (m.role, m.content)]
        texts.append("\n".join(parts))
    open_words = {word.lower() for word in words.NAMES + words.NOUNS}
    return tokenizer.build(texts, open_words=open_words, min_count=MIN_PIECE_COUNT)


def restore_tokenizer(checkpoint: Path | None, start: Path | None = None) -> Tokenizer:
    """The tokenizer beside the checkpoint, made once: a resumed run keeps its ids even when the mixture changed."""
    if start is not None:
        return Tokenizer.from_file(str(start / "tokenizer.json"))
    if checkpoint is None:
        return build_tokenizer()
    file = checkpoint.with_name("tokenizer.json")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        build_tokenizer().save(str(file))
    return Tokenizer.from_file(str(file))


def write_document(document: list[corpus.Message] | str) -> str:
    """The document as training text; a plain story ends with the end-of-text token."""
    return document + tokenizer.END_OF_TEXT if isinstance(document, str) else tokenizer.render(document)


def mark_targets(ids: list[int], encoder: Tokenizer) -> list[bool]:
    """Which tokens carry loss: every answer with its end token, or all of a plain text."""
    start, end = encoder.token_to_id(tokenizer.MESSAGE_START), encoder.token_to_id(tokenizer.MESSAGE_END)
    assistant = encoder.token_to_id("assistant")
    if start not in ids:
        return [True] * len(ids)
    marks, content_from = [], len(ids)
    for index, token in enumerate(ids):
        if token == assistant and ids[index - 1] == start:
            content_from = index + 2  # the role is followed by a newline
        marks.append(index >= content_from)
        if token == end:
            content_from = len(ids)
    return marks


def batches(encoder: Tokenizer, rng: Random) -> Iterator[Batch]:
    """Fresh documents forever, grouped by length so that padding stays small."""
    while True:
        texts = [write_document(corpus.document(rng)) for _ in range(POOL_DOCUMENTS)]
        rows = [encoding.ids for encoding in encoder.encode_batch(texts, add_special_tokens=False)]
        rows = sorted((row for row in rows if len(row) <= MAX_DOCUMENT_TOKENS), key=len)
        groups: list[list[list[int]]] = [[]]
        for row in rows:
            if len(row) * (len(groups[-1]) + 1) > MICRO_BATCH_TOKENS:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        yield from (_pad([Example(ids=row, is_target=mark_targets(row, encoder)) for row in group]) for group in groups)


def start_network(config: Qwen3Config, seed: int, start: Path | None) -> Network:
    """A network with random weights, or with those of an exported model."""
    torch.manual_seed(seed)
    network = Network(config)
    if start is not None:
        saved = load_file(start / "model.safetensors")
        network.load_state_dict({name.removeprefix("model."): weight.float() for name, weight in saved.items()})
    return network


def train(encoder: Tokenizer, network: Network, *, minutes: float, seed: int, checkpoint: Path | None) -> Network:
    """The trained network; with a checkpoint file the training goes on from there and is saved there."""
    run = Run(network, minutes * 60, checkpoint)
    for layer in network.layers:
        layer.compile(dynamic=True)
    data = batches(encoder, Random(seed + 1 + run.num_steps))
    while run.progress() < 1:
        run.step([next(data) for _ in range(MICRO_BATCHES)])
    run.save()
    return network


class Run:
    """One training run: its optimisers, its clock and its checkpoint."""

    def __init__(self, network: Network, duration_s: float, checkpoint: Path | None) -> None:
        self.network, self.duration_s, self.checkpoint = network, duration_s, checkpoint
        named = dict(network.named_parameters())
        hidden = [weight for name, weight in named.items() if weight.ndim == 2 and "embed" not in name]
        rest = [weight for name, weight in named.items() if weight.ndim == 1 or "embed" in name]
        muon = Muon(hidden, lr=0.02, momentum=0.95, weight_decay=0.02)
        adam = torch.optim.AdamW(rest, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0)
        self.optimisers: list[torch.optim.Optimizer] = [muon, adam]
        self.peaks = [0.02, 4e-3]
        self.num_steps = self.num_tokens = 0
        self.mean_loss = 7.0
        self.elapsed_before_s = 0.0
        if checkpoint is not None and checkpoint.exists():
            self._load(checkpoint)
        self.started_s = self.saved_s = time.monotonic()

    def elapsed_s(self) -> float:
        """Seconds trained, those before the checkpoint included."""
        return self.elapsed_before_s + time.monotonic() - self.started_s

    def progress(self) -> float:
        """The share of the training time that is over."""
        return self.elapsed_s() / self.duration_s

    def step(self, micro_batches: list[Batch]) -> None:
        """One update from these batches."""
        rate = min(1.0, (self.num_steps + 1) / WARMUP_STEPS, max(0.0, (1 - self.progress()) / (1 - FLAT_SHARE)))
        for optimiser, peak in zip(self.optimisers, self.peaks, strict=True):
            optimiser.param_groups[0]["lr"] = peak * rate
        num_targets = sum(len(batch.targets) for batch in micro_batches)
        loss = sum(self._backward(batch, num_targets) for batch in micro_batches)
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        for optimiser in self.optimisers:
            optimiser.step()
            optimiser.zero_grad()
        self.num_steps += 1
        self.num_tokens += sum(batch.ids.numel() for batch in micro_batches)
        self.mean_loss += 0.02 * (loss - self.mean_loss)
        self._report()

    def save(self) -> None:
        """Write weights, optimisers and clock, whole or not at all."""
        self.saved_s = time.monotonic()
        if self.checkpoint is None:
            return
        state = {
            "network": self.network.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "clock": [self.num_steps, self.num_tokens, self.elapsed_s(), self.mean_loss],
        }
        unfinished = self.checkpoint.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(self.checkpoint)

    def _load(self, checkpoint: Path) -> None:
        state = torch.load(checkpoint)
        self.network.load_state_dict(state["network"])
        for optimiser, saved in zip(self.optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        self.num_steps, self.num_tokens, self.elapsed_before_s, self.mean_loss = state["clock"]

    def _backward(self, batch: Batch, num_targets: int) -> float:
        hidden = self.network(batch.ids).flatten(0, 1)[batch.positions]
        loss = self.network.loss(hidden, batch.targets) / num_targets
        torch.autograd.backward(loss)
        return loss.item()

    def _report(self) -> None:
        if self.num_steps % 25 == 0:
            speed = self.num_tokens / self.elapsed_s()
            log.info(
                "step %d loss %.4f tokens %.2fM %.0f tok/s",
                self.num_steps,
                self.mean_loss,
                self.num_tokens / 1e6,
                speed,
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
    arguments = _parse()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    encoder = restore_tokenizer(arguments.checkpoint, arguments.start)
    ends = {"eos_token_id": tokenizer.SPECIAL_TOKENS.index(tokenizer.MESSAGE_END)}
    config = make_config(encoder.get_vocab_size(), pad_token_id=0, **ends)
    network = start_network(config, arguments.seed, arguments.start)
    train(encoder, network, minutes=arguments.minutes, seed=arguments.seed, checkpoint=arguments.checkpoint)
    arguments.out.mkdir(parents=True, exist_ok=True)
    export(network, config, encoder, arguments.out)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "workers" / "model" / "demo")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--start", type=Path, default=None, help="an exported model to begin from")
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
