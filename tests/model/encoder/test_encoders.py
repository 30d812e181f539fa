"""Encoders compute what the unmodified model computes for the text alone, whatever stands beside it in the batch."""

import random
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, AutoModelForSequenceClassification

from storage.errors import ModelFilesMissing, ModelUnsupported
from tests.model.encoder.tiny_encoder import CLS, MAX_LEN, SEP, SIZE, VOCAB_SIZE, make_cross_encoder, make_encoder
from workers.engine.encoder_engine import EncodingRequest
from workers.model.architecture.sentence_folder import Pooling, find_encoder
from workers.model.encoder.encoder_load import LoadedEncoder, load_encoder
from workers.model.progress import write_to
from workers.model.resources.memory_options import LoadLimits

PACKED = ("bert", "roberta", "xlm-roberta", "modernbert", "nomic_bert", "qwen3")
FUSED = ("bert", "roberta", "xlm-roberta")
# Relative positions that only its own attention knows.
PLAIN = ("mpnet",)
chance = random.Random(3)
TEXTS = [
    (CLS, *(chance.randrange(4, VOCAB_SIZE) for _ in range(num_tokens)), SEP)
    for num_tokens in [chance.randint(1, MAX_LEN - 2) for _ in range(63)] + [MAX_LEN - 2]
]


def load(folder: Path, **limits: int) -> LoadedEncoder:
    encoder = find_encoder(folder)
    assert encoder is not None
    return load_encoder(
        folder,
        encoder,
        device="cpu",
        dtype="auto",
        limits=LoadLimits(num_threads=1, **limits),
        served_name="tiny",
        report=write_to(None),
    )


def encode(loaded: LoadedEncoder, texts: list[tuple[int, ...]], **options: object) -> Tensor:
    batch = [
        EncodingRequest(sequence_id=str(place), job="job", token_ids=token_ids, **options)  # type: ignore[arg-type]
        for place, token_ids in enumerate(texts)
    ]
    vectors = loaded.runner.encode(batch)
    return torch.stack([torch.from_numpy(numpy.frombuffer(vector or b"", "<f4").copy()) for vector in vectors])


@torch.inference_mode()
def hidden_of(folder: Path, texts: list[tuple[int, ...]]) -> list[Tensor]:
    """The hidden states of each text, alone in the unmodified model."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    return [model(input_ids=torch.tensor([token_ids])).last_hidden_state[0] for token_ids in texts]


@pytest.mark.parametrize("model_type", [*PACKED, *PLAIN])
def test_each_text_has_the_vector_that_transformers_gives_it_alone(tmp_path: Path, model_type: str) -> None:
    folder = make_encoder(tmp_path, model_type)

    found = encode(load(folder), TEXTS)

    expected = functional.normalize(torch.stack([states.mean(0) for states in hidden_of(folder, TEXTS)]), dim=1)
    assert functional.cosine_similarity(found, expected).min() > 0.9999
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "modernbert", "qwen3", "mpnet"])
def test_the_neighbours_in_a_batch_change_nothing(tmp_path: Path, model_type: str) -> None:
    loaded = load(make_encoder(tmp_path, model_type))
    order = list(range(len(TEXTS)))
    chance.shuffle(order)

    together = encode(loaded, TEXTS)
    shuffled = encode(loaded, [TEXTS[place] for place in order])
    alone = torch.cat([encode(loaded, [one]) for one in TEXTS])

    assert functional.cosine_similarity(together, alone).min() > 0.9999
    assert torch.allclose(together[order], shuffled, atol=1e-6)


@pytest.mark.parametrize("model_type", [*PACKED, *PLAIN])
def test_an_architecture_is_computed_in_the_fastest_way_that_it_allows(
    tmp_path: Path, model_type: str, capsys: pytest.CaptureFixture[str]
) -> None:
    load(make_encoder(tmp_path, model_type))

    how = "fused layers" if model_type in FUSED else "equal length" if model_type in PLAIN else "'packed texts'"
    assert how in capsys.readouterr().out


@pytest.mark.parametrize("changes", [{"hidden_act": "relu"}, {"type_vocab_size": 1}], ids=["relu", "one-segment"])
def test_a_bert_of_another_kind_is_right_too(tmp_path: Path, changes: dict[str, object]) -> None:
    folder = make_encoder(tmp_path, **changes)  # type: ignore[arg-type]  # a mapping of keyword arguments

    expected = functional.normalize(torch.stack([states.mean(0) for states in hidden_of(folder, TEXTS[:9])]), dim=1)
    assert torch.allclose(encode(load(folder), TEXTS[:9]), expected, atol=1e-5)


def test_a_network_that_disagrees_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_encoder(tmp_path)
    monkeypatch.setattr(torch.ops.mkldnn._linear_pointwise, "binary", lambda rows, other, *_: other)

    found = encode(load(folder), TEXTS[:9])

    assert "encoder_disagrees" in capsys.readouterr().out
    expected = functional.normalize(torch.stack([states.mean(0) for states in hidden_of(folder, TEXTS[:9])]), dim=1)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("pooling", list(Pooling))
def test_poolings_are_those_of_the_folder(tmp_path: Path, pooling: Pooling) -> None:
    folder = make_encoder(tmp_path, pooling={"pooling_mode": pooling.value}, is_normalized=False)

    found = encode(load(folder), TEXTS[:8])

    states = hidden_of(folder, TEXTS[:8])
    expected = {
        Pooling.CLS: [one[0] for one in states],
        Pooling.LAST: [one[-1] for one in states],
        Pooling.MEAN: [one.mean(0) for one in states],
        Pooling.MAX: [one.max(0).values for one in states],
        Pooling.MEAN_SQRT: [one.sum(0) / len(one) ** 0.5 for one in states],
        Pooling.WEIGHTED_MEAN: [
            sum((place + 1) * row for place, row in enumerate(one)) / sum(range(1, len(one) + 1)) for one in states
        ],
    }[pooling]
    assert torch.allclose(found, torch.stack(expected), atol=1e-5)


def test_a_cut_vector_is_a_unit_vector_again(tmp_path: Path) -> None:
    loaded = load(make_encoder(tmp_path, extra={"matryoshka_dimensions": [SIZE, 16, 8]}))

    whole, cut = encode(loaded, TEXTS[:4]), encode(loaded, TEXTS[:4], dimensions=8)
    plain = encode(loaded, TEXTS[:4], is_normalized=False)

    assert loaded.manifest.embedding is not None
    assert loaded.manifest.embedding.allowed_dimensions == (8, 16)
    assert torch.allclose(cut, functional.normalize(whole[:, :8], dim=1), atol=1e-6)
    assert torch.allclose(functional.normalize(plain, dim=1), whole, atol=1e-6)
    assert not torch.allclose(plain.norm(dim=1), torch.ones(4), atol=1e-2)
    assert torch.equal(encode(loaded, TEXTS[:4], dimensions=8, is_normalized=False), plain[:, :8])


@pytest.mark.parametrize("model_type", ["bert", "roberta", "modernbert"])
def test_a_cross_encoder_gives_the_sigmoid_of_its_logit(tmp_path: Path, model_type: str) -> None:
    folder = make_cross_encoder(tmp_path, model_type)
    loaded = load(folder)
    has_segments = model_type == "bert"
    pairs = [((CLS, 5, 6, SEP), (7, 8, 9, SEP)), ((CLS, 11, SEP), (40, SEP)), ((CLS, 5, SEP), (77, 78, 79, SEP))]

    batch = [
        EncodingRequest(sequence_id=str(place), job="job", token_ids=first + second, second_start=len(first))
        for place, (first, second) in enumerate(pairs)
    ]
    found = [float(numpy.frombuffer(score or b"", "<f4")[0]) for score in loaded.runner.encode(batch)]

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = [
            model(
                input_ids=torch.tensor([first + second]),
                **({"token_type_ids": torch.tensor([[0] * len(first) + [1] * len(second)])} if has_segments else {}),
            ).logits[0, 0]
            for first, second in pairs
        ]
    assert found == pytest.approx([float(torch.sigmoid(logit)) for logit in logits], abs=1e-5)
    assert loaded.manifest.embedding is not None
    assert (loaded.manifest.embedding.dimensions, loaded.manifest.capabilities["embedding"]) == (None, False)


def test_the_manifest_says_what_the_folder_says(tmp_path: Path) -> None:
    prompts = {"query": "w4 w5 ", "document": ""}
    folder = make_encoder(
        tmp_path,
        "roberta",
        extra={"prompts": prompts, "default_prompt_name": "query"},
        settings={"do_lower_case": True},
    )

    manifest = load(folder).manifest

    assert manifest.embedding is not None
    assert (manifest.embedding.dimensions, manifest.embedding.prompts) == (SIZE, prompts)
    assert (manifest.embedding.default_prompt, manifest.embedding.is_normalized) == ("w4 w5 ", True)
    # Without max_seq_length: the tokenizer's limit, or the positions but for RoBERTa's first ones.
    assert manifest.context_length == MAX_LEN
    assert "Lowercase" in manifest.tokenizer_json
    assert load(folder, max_len=20).manifest.context_length == 20


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pooling": {"pooling_mode": ["cls", "mean"]}}, "2 ways"),
        (
            {"pooling": {"pooling_mode": "mean", "include_prompt": False}, "extra": {"prompts": {"query": "q: "}}},
            "leaves its prompt out",
        ),
    ],
    ids=["two-poolings", "prompt-left-out"],
)
def test_a_folder_that_would_be_computed_otherwise_is_refused(
    tmp_path: Path, changes: dict[str, dict[str, object]], reason: str
) -> None:
    folder = make_encoder(tmp_path, **changes)  # type: ignore[arg-type]  # a mapping of keyword arguments

    with pytest.raises(ModelUnsupported, match=reason):
        find_encoder(folder)


def test_modules_that_are_not_known_are_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path)
    modules = (folder / "modules.json").read_text()
    (folder / "modules.json").write_text(modules.replace("models.Normalize", "models.Dense"))

    with pytest.raises(ModelUnsupported, match="Dense"):
        find_encoder(folder)


def test_a_folder_without_a_word_about_embeddings_is_no_encoder(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path / "bare")
    (folder / "modules.json").unlink()

    assert find_encoder(folder) is None
    assert find_encoder(make_cross_encoder(tmp_path / "classes", num_labels=3)) is None


def test_an_encoder_with_a_missing_layer_is_refused(tmp_path: Path) -> None:
    folder = make_encoder(tmp_path)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"num_hidden_layers": 3', '"num_hidden_layers": 4'))

    with pytest.raises(ModelFilesMissing, match=r"encoder\.layer\.3"):
        load(folder)
