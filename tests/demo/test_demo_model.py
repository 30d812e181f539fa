"""The committed demo model: its size, its files, and its exactness on held-out prompts."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, Qwen3ForCausalLM

from bench.demo_model import MODEL_FOLDER, load, replier
from demo import corpus
from demo.dialog import Dialog, Message
from demo.evaluation import REQUIRED_SKILLS, draw_cases, evaluate
from demo.train import mark_targets, write_document

MAX_SIZE_BYTES = 12_000_000
NUM_CASES = {"story": 20}

Loaded = tuple[Qwen3ForCausalLM, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def loaded() -> Iterator[Loaded]:
    # Threads that wait for each other at every small product lose minutes on a busy machine.
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield load(MODEL_FOLDER)
    torch.set_num_threads(num_threads)


def test_the_weights_are_at_most_twelve_megabytes_of_bfloat16() -> None:
    assert (MODEL_FOLDER / "model.safetensors").stat().st_size <= MAX_SIZE_BYTES
    model = Qwen3ForCausalLM.from_pretrained(MODEL_FOLDER, dtype="auto")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}


def test_both_tokenizers_give_the_same_ids(loaded: Loaded, tmp_path: Path) -> None:
    plain = Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))
    loaded[1].save_pretrained(tmp_path)
    saved = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    rng = Random(3)

    for text in [write_document(corpus.document(rng)).text for _ in range(300)]:
        ids = plain.encode(text, add_special_tokens=False).ids
        assert loaded[1].encode(text, add_special_tokens=False) == ids
        assert saved.encode(text, add_special_tokens=False).ids == ids
        assert loaded[1].decode(ids) == text


def test_loss_falls_on_answers_and_their_ends_only() -> None:
    encoder = Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))
    messages = [Message(role="user", content="Hi"), Message(role="assistant", content="Hello!")]
    ids = encoder.encode(write_document(Dialog(messages=messages)).text, add_special_tokens=False).ids

    marks = mark_targets(ids, encoder)
    trained = [token for token, is_target in zip(ids, marks, strict=True) if is_target]

    assert encoder.decode(trained, skip_special_tokens=False) == "Hello!<|im_end|>"


@pytest.mark.parametrize("skill", REQUIRED_SKILLS)
def test_a_skill_is_at_least_95_percent_exact_on_held_out_prompts(skill: str, loaded: Loaded) -> None:
    model, tokenizer = loaded

    # A batch is computed until its longest answer ends.
    cases = sorted(draw_cases(skill, NUM_CASES.get(skill, 150)), key=lambda case: len(case.answer))
    score = evaluate(skill, cases, replier(model, tokenizer), lambda text: len(tokenizer.tokenize(text)), batch_size=50)

    assert score.share >= 0.95, [(case.dialog.messages[-1].content, case.answer, text) for case, text in score.misses]
