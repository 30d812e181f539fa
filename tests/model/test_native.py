"""The C++ decoder computes what transformers computes, and each sequence as if it were alone."""

import ctypes
from array import array
from pathlib import Path

import pytest
import torch
from msgspec import structs
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from storage.contract import SamplingParams
from tests.model.conftest import prompt
from tests.model.tiny import CONTEXT_LENGTH, make_tiny
from workers.engine.runner import Chunk
from workers.model.architecture.probe import attention_layers
from workers.model.native import build
from workers.model.native.build import Build
from workers.model.native.decoder import BLOCK_SIZE, Decoder
from workers.model.native.library import Library, Limits
from workers.model.native.mapping import map_of
from workers.model.native.runner import NativeRunner
from workers.model.native.sampling import native_sampler
from workers.model.native.weights import Weights
from workers.model.sampling.sampled import Vocabulary

NUM_BLOCKS = 16
VOCAB_SIZE = 400
# Windows are shorter than the prompts, and softcaps so low that they bend every score.
FAMILIES: dict[str, dict[str, object]] = {
    "llama": {
        "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        "attention_bias": True,
    },
    "mistral": {"sliding_window": 8},
    "qwen2": {},
    "qwen3": {},
    "smollm3": {"num_hidden_layers": 5},
    "phi3": {"sliding_window": 8},
    "gemma2": {"sliding_window": 8, "attn_logit_softcapping": 1.0, "final_logit_softcapping": 5.0},
    "gemma3_text": {"sliding_window": 8, "num_hidden_layers": 7},
}


def decoder_of(
    library: Library, model: PreTrainedModel, *, num_threads: int = 2, max_len: int = CONTEXT_LENGTH
) -> Decoder:
    weight_map = map_of(model, attention_layers(model))
    assert weight_map is not None
    weights = Weights(weight_map, dict(model.named_parameters()).__getitem__, model.dtype, max_len=max_len)
    limits = Limits(
        num_threads=num_threads, num_spins=100, max_batch_tokens=256, num_blocks=NUM_BLOCKS, max_logit_rows=8
    )
    return Decoder(library, weights, limits)


def runner_of(
    library: Library, model: PreTrainedModel, *, num_threads: int = 2, max_len: int = CONTEXT_LENGTH
) -> NativeRunner:
    """The model on the library. It still computes in transformers before, but no longer after this call."""
    decoder = decoder_of(library, model, num_threads=num_threads, max_len=max_len)
    return NativeRunner(decoder, native_sampler(Vocabulary(size=VOCAB_SIZE, eos_token_ids=[3]), library, decoder))


def chunk(ids: tuple[int, ...], start: int, end: int, blocks: list[int], **sampling: object) -> Chunk:
    """`ids[start:end]` of a sequence that ends there."""
    return Chunk(
        sequence_id=str(blocks),
        blocks=array("i", blocks),
        tokens=ids[:end],
        start=start,
        end=end,
        num_prompt=end,
        logits_from=end - 1,
        sampling=SamplingParams(max_tokens=1, temperature=0.0, **sampling),  # type: ignore[arg-type]  # any of them
    )


def plain_logits(model: PreTrainedModel, ids: tuple[int, ...]) -> Tensor:
    """What transformers says after every token, [num_tokens, vocab_size]."""
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([ids])).logits[0].float()
    return logits


def load(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family: str, library: Library, tmp_path: Path) -> None:
    model = load(make_tiny(tmp_path / "model", family, **FAMILIES[family]))
    ids = prompt(1, 90)
    expected = plain_logits(model, ids)
    runner = runner_of(library, model)

    found = [runner.logits([chunk(ids, *span, [3, 1, 2])])[0] for span in ((0, 50), (50, 51), (51, 60), (60, 90))]

    torch.testing.assert_close(torch.stack(found), expected[[49, 50, 59, 89]], rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("family", ["mistral", "gemma2"])
def test_the_window_matters(family: str, library: Library, tmp_path: Path) -> None:
    narrow = runner_of(library, load(make_tiny(tmp_path / "narrow", family, **FAMILIES[family])))
    wide = runner_of(library, load(make_tiny(tmp_path / "wide", family, **FAMILIES[family] | {"sliding_window": 100})))
    ids = prompt(1, 60)

    first, second = (runner.logits([chunk(ids, 0, 60, [3, 1])]) for runner in (narrow, wide))

    assert (first - second).abs().max() > 0.1


def test_bfloat16_is_close(library: Library, tiny_folder: Path) -> None:
    model = load(tiny_folder, torch.bfloat16)
    ids = prompt(1, 90)
    expected = plain_logits(model, ids)

    found = runner_of(library, model).logits([chunk(ids, 0, 90, [0, 1, 2])])[0]

    assert torch.cosine_similarity(found, expected[89], dim=0) > 0.995


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_threads", [1, 3])
def test_logits_do_not_depend_on_batch_or_chunks_bit_for_bit(
    dtype: torch.dtype, num_threads: int, library: Library, tiny_folder: Path
) -> None:
    alone = runner_of(library, load(tiny_folder, dtype), num_threads=1)
    together = runner_of(library, load(tiny_folder, dtype), num_threads=num_threads)
    sequences = {salt: prompt(salt, 60 + salt) for salt in range(4)}
    expected = {
        salt: alone.logits([chunk(ids, 0, len(ids), [2 * salt, 2 * salt + 1, 9])])[0] for salt, ids in sequences.items()
    }

    # Each in chunks of its own, some decoding while others still read; the last block is everyone's own.
    tables = {salt: [4 * salt, 4 * salt + 1, 4 * salt + 2] for salt in sequences}
    together.logits([chunk(sequences[0], 0, 59, tables[0]), chunk(sequences[1], 0, 17, tables[1])])
    first = together.logits([chunk(sequences[0], 59, 60, tables[0]), chunk(sequences[1], 17, 61, tables[1])])
    second = together.logits(
        [chunk(sequences[2], 0, 62, tables[2]), chunk(sequences[3], 0, 63, tables[3]), chunk((5,), 0, 1, [15])]
    )

    assert torch.equal(first[0], expected[0])
    assert torch.equal(first[1], expected[1])
    assert torch.equal(second[0], expected[2])
    assert torch.equal(second[1], expected[3])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("family", "changes"),
    [("qwen3", {}), ("mistral", {"sliding_window": 140}), ("gemma2", {"sliding_window": 40, "head_dim": 24})],
)
def test_nor_do_those_of_sequences_that_are_longer_than_a_span_of_blocks(
    family: str, changes: dict[str, object], dtype: torch.dtype, library: Library, tmp_path: Path
) -> None:
    folder = make_tiny(tmp_path / "model", family, max_position_embeddings=512, **changes)
    ids, others = prompt(1, 300), prompt(2, 200)
    expected = plain_logits(load(folder), ids)[[130, 299], :]
    alone = runner_of(library, load(folder, dtype), num_threads=1, max_len=512)
    together = runner_of(library, load(folder, dtype), max_len=512)
    blocks = [3, 0, 9, 2, 1, 8, 7, 4, 5, 6]

    alone.logits([chunk(ids, 0, 250, blocks)])
    whole = alone.logits([chunk(ids, 250, 300, blocks)])[0]
    together.logits([chunk(ids, 0, 130, blocks), chunk(others, 0, 100, [10, 11, 12, 13])])
    middle = together.logits([chunk(others, 100, 160, [10, 11, 12, 13, 14]), chunk(ids, 130, 131, blocks)])[1]
    together.logits([chunk(ids, 131, 299, blocks)])
    last = together.logits([chunk((5,), 0, 1, [15]), chunk(ids, 299, 300, blocks)])[1]

    assert torch.equal(last, whole)
    if dtype == torch.float32:
        torch.testing.assert_close(torch.stack([middle, last]), expected, rtol=1e-4, atol=5e-5)
    else:
        assert float(torch.cosine_similarity(torch.stack([middle, last]), expected, dim=-1).min()) > 0.99


def test_a_chunk_reads_blocks_that_another_chunk_of_its_step_writes(library: Library, tiny_folder: Path) -> None:
    runner = runner_of(library, load(tiny_folder))
    ids = prompt(1, 50)
    expected = runner.logits([chunk(ids, 0, 50, [0, 1])])[0]
    runner.reset()

    first = chunk(ids, 0, BLOCK_SIZE, [4])
    second = chunk(ids, BLOCK_SIZE, 50, [4, 5])

    assert torch.equal(runner.logits([first, second])[1], expected)


def test_what_is_not_finite_stays_with_its_sequence(library: Library, tiny_folder: Path) -> None:
    model = load(tiny_folder)
    embedding = model.get_input_embeddings().weight
    # A copy: what is written to a mapped file's pages is lost when they are released.
    embedding.data = embedding.data.clone()
    embedding.data[7] = float("nan")
    runner = runner_of(library, model)
    good, bad = prompt(1, 40), (5, 7, 9)
    runner.launch([chunk(good, 0, 40, [0, 1])])
    expected = runner.collect().token_ids

    runner.launch([chunk(bad, 0, 3, [2]), chunk(good, 0, 40, [3, 4])])
    output = runner.collect()
    runner.clear([2])
    runner.launch([chunk(good, 0, 40, [5, 2])])

    assert output.token_ids == [None, *expected]
    assert runner.collect().token_ids == expected


def test_prompt_logprobs_are_those_of_transformers(library: Library, tiny_folder: Path) -> None:
    model = load(tiny_folder)
    ids = prompt(1, 40)
    expected = plain_logits(model, ids).log_softmax(-1)
    runner = runner_of(library, model)

    runner.launch([chunk((5, 6), 0, 2, [9]), chunk(ids, 0, 40, [0, 1], prompt_logprobs=2, logprobs=3)])
    output = runner.collect()

    reported = output.prompt_logprobs[1]
    assert [one.token_id for one in reported] == list(ids[1:])
    logprobs = [float(expected[p, ids[p + 1]]) for p in range(39)]
    assert [one.logprob for one in reported] == pytest.approx(logprobs, abs=1e-3)
    assert [pair[0] for pair in reported[20].top] == expected[20].topk(2).indices.tolist()
    assert len(output.logprobs[1][0].top) == 3
    assert (output.logprobs[1][0].token_id,) == output.token_ids[1] == (int(expected[39].argmax()),)


def test_several_threads_sample_and_rank_what_one_does(library: Library, tiny_folder: Path) -> None:
    vocabulary = Vocabulary(size=5000, eos_token_ids=[3])
    alone = native_sampler(vocabulary, library)
    together = native_sampler(vocabulary, library, decoder_of(library, load(tiny_folder), num_threads=3))
    kinds: list[dict[str, object]] = [
        {"temperature": 0.0, "logprobs": 0},
        {"seed": 1, "top_p": 0.9, "frequency_penalty": 0.5, "logprobs": 4},
        {"seed": 2, "top_k": 30, "logit_bias": ((7, 90.0),)},
        {"seed": 3, "repetition_penalty": 1.3, "logprobs": 20},
    ]
    requests = [
        structs.replace(
            one, sequence_id=str(place), sampling=structs.replace(one.sampling, **kinds[place % len(kinds)])
        )
        for place, one in enumerate([chunk(prompt(1, 40), 39, 40, [0, 1])] * 11)
    ]
    for num_rows in (1, 2, 11):
        logits = torch.arange(num_rows * 5000.0).mul(7).sin().view(num_rows, 5000) * 9

        picked = together.sample(logits.clone(), requests[:num_rows])

        assert picked == alone.sample(logits.clone(), requests[:num_rows])
        assert together.rank(logits, range(num_rows), 5) == alone.rank(logits, range(num_rows), 5)


def test_without_a_compiler_or_a_folder_to_write_there_is_no_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    assert Build(tmp_path / "file" / "folder").wait() is None
    assert Build(None).wait() is None

    monkeypatch.setenv("PATH", str(tmp_path))
    assert Build(tmp_path).wait() is None


def test_a_compilation_that_nobody_waits_for_leaves_nothing(tmp_path: Path) -> None:
    Build(tmp_path).close()

    assert list(tmp_path.iterdir()) == []


def test_a_library_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A source of one line: all other tests run on what the kernels themselves are compiled to.
    source = tmp_path / "decoder.cpp"
    source.write_text('extern "C" int answer() { return 42; }')
    monkeypatch.setattr(build, "_KERNELS", tmp_path)
    monkeypatch.setattr(build, "_SOURCE", source)
    folder = tmp_path / "compiled"

    first = Build(folder).wait()
    assert first is not None
    changed_at = first.stat().st_mtime_ns

    assert ctypes.CDLL(str(first)).answer() == 42
    assert Build(folder).wait() == first
    assert first.stat().st_mtime_ns == changed_at
    assert [path.name for path in folder.iterdir()] == [first.name]
