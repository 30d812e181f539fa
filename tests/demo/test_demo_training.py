"""The demo model's training: what one step does, and a run that goes on from its checkpoint."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from tokenizers import Tokenizer

from demo import corpus
from demo import tokenizer as demo_tokenizer
from demo.network import Network, make_config
from demo.train import Batch, Plan, Run, batches

NUM_STEPS = 2


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads that wait for each other at every small product lose minutes on a busy machine."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="module")
def encoder() -> Tokenizer:
    rng = Random(1)
    documents = [corpus.document(rng) for _ in range(200)]
    texts = [document if isinstance(document, str) else document.text() for document in documents]
    return demo_tokenizer.build(texts, words={"the", "is"}, min_count=5)


@pytest.fixture(scope="module")
def drawn(encoder: Tokenizer) -> list[Batch]:
    """Batches of few and short documents."""
    rng = Random(2)
    found = (batch for batch in batches(encoder, rng) if batch.ids.shape[1] <= 64)
    return [next(found) for _ in range(NUM_STEPS)]


def test_a_run_that_goes_on_from_its_checkpoint_is_the_same_run(
    encoder: Tokenizer, drawn: list[Batch], tmp_path: Path
) -> None:
    whole = _run(encoder, None)
    for batch in drawn:
        whole.step([batch])

    first = _run(encoder, tmp_path / "run.pt")
    for batch in drawn[: NUM_STEPS // 2]:
        first.step([batch])
    first.save()
    second = _run(encoder, tmp_path / "run.pt", seed=9)
    for batch in drawn[NUM_STEPS // 2 :]:
        second.step([batch])

    assert (second.num_steps, second.num_tokens) == (whole.num_steps, whole.num_tokens)
    for ours, theirs in zip(second.network.parameters(), whole.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_a_step_averages_over_the_targets_of_all_its_batches(encoder: Tokenizer, drawn: list[Batch]) -> None:
    run = _run(encoder, None)
    both = drawn[:2]
    hidden = [run.network(batch.ids).flatten(0, 1)[batch.positions] for batch in both]
    losses = [run.network.loss(one, batch.targets) for one, batch in zip(hidden, both, strict=True)]
    expected = float(sum(loss.item() for loss in losses)) / sum(len(batch.targets) for batch in both)

    run.mean_loss = 0.0
    run.step(both)

    assert run.mean_loss == pytest.approx(0.02 * expected, rel=1e-3)
    assert run.num_tokens == sum(batch.ids.numel() for batch in both)


def _run(encoder: Tokenizer, checkpoint: Path | None, *, seed: int = 0) -> Run:
    torch.manual_seed(seed)
    config = make_config(encoder.get_vocab_size(), eos_token_id=2, pad_token_id=0)
    config.num_hidden_layers = 1
    plan = Plan(minutes=1e6, out=Path(), processes=1, seed=seed, checkpoint=checkpoint)
    return Run(Network(config), plan, is_first=True)
