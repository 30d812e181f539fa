"""Rerank and score with the whole platform: cosines of a bi-encoder, sigmoids of a cross-encoder."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from openai import OpenAI
from transformers import AutoModelForSequenceClassification

from tests.e2e.platform import Platform, running_platform
from tests.model.encoder.tiny_encoder import CLS, MAX_LEN, SEP, make_cross_encoder, make_encoder
from tests.plain_http import http_client, sdk_client

QUERY = "w5 w6 w7"
DOCUMENTS = ["w50 w51", "w5 w6 w7", "w90", "w5 w61 w7 w8 w9 w10"]


@pytest.fixture(scope="module")
def cross_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_cross_encoder(tmp_path_factory.mktemp("cross") / "cross")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory, cross_folder: Path) -> Iterator[Platform]:
    bi_folder = make_encoder(tmp_path_factory.mktemp("bi") / "bi")
    home = tmp_path_factory.mktemp("rerank") / "home"
    with running_platform(
        home, "--model", f"bi={bi_folder}", "--model", f"cross={cross_folder}", "--model", "demo"
    ) as started:
        yield started


def ask(platform: Platform, path: str, status: int = 200, **body: object) -> Any:  # Any: the shape is what is asserted
    with http_client(platform.root_url) as http:
        answer = http.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def cosines(platform: Platform, first: str, second: list[str]) -> list[float]:
    with sdk_client(platform.base_url) as client:
        one, *others = client.embeddings.create(model="bi", input=[first, *second]).data
    return [sum(map(float.__mul__, one.embedding, other.embedding)) for other in others]


@torch.inference_mode()
def sigmoids(folder: Path, first: str, second: list[str]) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = []
    for text in second:
        one, other = ([int(word[1:]) for word in words.split()] for words in (first, text))
        ids = [CLS, *one, SEP, *other, SEP]
        segments = [0] * (len(one) + 2) + [1] * (len(other) + 1)
        logits = model(input_ids=torch.tensor([ids]), token_type_ids=torch.tensor([segments])).logits
        found.append(float(torch.sigmoid(logits[0, 0])))
    return found


def test_a_bi_encoder_ranks_by_cosine(encoders: Platform) -> None:
    answer = ask(encoders, "/v1/rerank", model="bi", query=QUERY, documents=DOCUMENTS)

    expected = cosines(encoders, QUERY, DOCUMENTS)
    order = sorted(range(len(DOCUMENTS)), key=lambda index: -expected[index])
    assert [one["index"] for one in answer["results"]] == order
    assert [one["relevance_score"] for one in answer["results"]] == pytest.approx(
        [expected[i] for i in order], abs=1e-5
    )
    assert [one["document"]["text"] for one in answer["results"]] == [DOCUMENTS[index] for index in order]
    assert (order[0], answer["object"], answer["id"][:7]) == (1, "list", "rerank-")
    assert answer["usage"]["total_tokens"] == 5 + 4 + 5 + 3 + 8


def test_a_cross_encoder_ranks_by_the_sigmoid_of_its_logit(encoders: Platform, cross_folder: Path) -> None:
    answer = ask(
        encoders, "/v1/rerank", model="cross", query=QUERY, documents=DOCUMENTS, top_n=2, return_documents=False
    )

    expected = sigmoids(cross_folder, QUERY, DOCUMENTS)
    best = sorted(range(len(DOCUMENTS)), key=lambda index: -expected[index])[:2]
    assert answer["results"] == [
        {"index": index, "relevance_score": pytest.approx(expected[index], abs=1e-5)} for index in best
    ]


@pytest.mark.parametrize("model", ["bi", "cross"])
def test_scores_are_those_of_the_pairs(encoders: Platform, cross_folder: Path, model: str) -> None:
    def expected(first: str, second: list[str]) -> list[float]:
        return cosines(encoders, first, second) if model == "bi" else sigmoids(cross_folder, first, second)

    def scores(text_1: object, text_2: object) -> list[float]:
        answer = ask(encoders, "/v1/score", model=model, text_1=text_1, text_2=text_2)
        assert [one["index"] for one in answer["data"]] == list(range(len(answer["data"])))
        return [one["score"] for one in answer["data"]]

    assert scores(QUERY, "w50 w51") == pytest.approx(expected(QUERY, ["w50 w51"]), abs=1e-5)
    assert scores(QUERY, DOCUMENTS) == pytest.approx(expected(QUERY, DOCUMENTS), abs=1e-5)
    pairs = list(zip(DOCUMENTS, DOCUMENTS[::-1], strict=True))
    one_by_one = [expected(first, [second])[0] for first, second in pairs]
    assert scores([first for first, _ in pairs], [second for _, second in pairs]) == pytest.approx(one_by_one, abs=1e-5)


def test_a_document_that_is_too_long_is_refused_or_cut(encoders: Platform) -> None:
    long = "w9 " * MAX_LEN
    for model in ("bi", "cross"):
        refused = ask(encoders, "/v1/rerank", 400, model=model, query=QUERY, documents=["w5", long])["error"]
        assert (refused["code"], refused["param"]) == ("context_length_exceeded", "documents[1]")
        cut = ask(encoders, "/v1/rerank", model=model, query=QUERY, documents=["w5", long], truncate_prompt_tokens=-1)
        assert len(cut["results"]) == 2


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/rerank", {"query": "", "documents": ["w4"]}, "query"),
        ("/v1/rerank", {"query": "w4", "documents": []}, "documents"),
        ("/v1/rerank", {"query": "w4", "documents": ["w4", ""]}, "documents[1]"),
        ("/v1/rerank", {"query": "w4", "documents": [{"text": "w4"}]}, "documents[0]"),
        ("/v1/rerank", {"query": "w4", "documents": ["w4"] * 2049}, "documents"),
        ("/v1/rerank", {"query": "w4", "documents": ["w4"], "top_n": 0}, "top_n"),
        ("/v1/rerank", {"query": "w4", "documents": ["w4"], "stream": True}, "stream"),
        ("/v1/rerank", {"query": "w4", "documents": ["w4"], "max_chunks_per_doc": 3}, "max_chunks_per_doc"),
        ("/v1/score", {"text_1": ["w4", "w5"], "text_2": ["w4"]}, "text_1"),
        ("/v1/score", {"text_1": ["w4", "w5"], "text_2": "w4"}, "text_1"),
        ("/v1/score", {"text_1": "w4", "text_2": ["w4", 5]}, "text_2[1]"),
        ("/v1/score", {"text_1": "w4"}, "text_2"),
    ],
)
def test_bad_bodies_are_refused_by_name(encoders: Platform, path: str, body: dict[str, object], param: str) -> None:
    assert ask(encoders, path, 400, model="bi", **body)["error"]["param"] == param


def test_the_wrong_kind_of_model_is_refused(encoders: Platform) -> None:
    rated = ask(encoders, "/v1/rerank", 400, model="demo", query="a", documents=["b"])["error"]
    embedded = ask(encoders, "/v1/embeddings", 400, model="cross", input="w4")["error"]

    assert {rated["code"], embedded["code"]} == {"model_capability_missing"}
    with sdk_client(encoders.base_url) as client:
        cross = client.models.retrieve("cross").model_dump()
    assert (cross["capabilities"]["rerank"], cross["capabilities"]["embedding"], cross["dimensions"]) == (
        True,
        False,
        None,
    )


def test_ratings_are_jobs_that_are_read_later(encoders: Platform) -> None:
    for path, body in (
        ("/v1/rerank", {"query": QUERY, "documents": DOCUMENTS}),
        ("/v1/score", {"text_1": QUERY, "text_2": DOCUMENTS}),
    ):
        now = ask(encoders, path, model="bi", **body)
        with http_client(encoders.root_url) as http:
            later = http.get(f"{path}/{now['id']}").json()
            assert http.delete(f"{path}/{now['id']}").json()["deleted"] is True
            assert http.get(f"{path}/{now['id']}").status_code == 404
        assert later == now


def test_the_examples_of_the_page_run(encoders: Platform) -> None:
    page = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text()
    lines = [
        block
        for block in re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        if "embeddings" not in block
    ]

    assert len(lines) == 2
    for line in lines:
        command = line.replace('"minilm"', '"bi"').replace("http://127.0.0.1:8000", encoders.root_url)
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60, check=True)
        assert "score" in done.stdout


def test_an_sdk_can_post_to_both(encoders: Platform) -> None:
    with OpenAI(base_url=encoders.base_url, api_key="unused") as client:
        answer: Any = client.post(
            "/rerank", body={"model": "bi", "query": QUERY, "documents": DOCUMENTS}, cast_to=object
        )

    assert len(answer["results"]) == len(DOCUMENTS)
