"""Embeddings with the whole platform and the unmodified SDK: bits, ids, limits, kinds of models, jobs."""

import base64
import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, NotFoundError, OpenAI, UnprocessableEntityError

from tests.e2e.framework_programs import run_framework
from tests.e2e.platform import Platform, running_platform
from tests.model.encoder.tiny_encoder import CLS, MAX_LEN, SEP, SIZE, make_encoder
from tests.plain_http import http_client, sdk_client
from tests.waiting import wait_until

TEXTS = [" ".join(f"w{4 + (place * 7 + word) % 100}" for word in range(1 + place % 40)) for place in range(64)]


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform with an encoder, whose vectors may be cut, and a model that generates text."""
    folder = make_encoder(
        tmp_path_factory.mktemp("encoder") / "tiny",
        extra={"matryoshka_dimensions": [16, SIZE], "prompts": {"query": "w5 w6 ", "document": ""}},
    )
    home = tmp_path_factory.mktemp("encoders") / "home"
    with running_platform(home, "--model", f"tiny={folder}", "--model", "demo") as started:
        yield started


@pytest.fixture
def client(encoders: Platform) -> Iterator[OpenAI]:
    with sdk_client(encoders.base_url) as opened:
        yield opened


def embed(client: OpenAI, inputs: object, **options: Any) -> list[list[float]]:
    answer = client.embeddings.create(model="tiny", input=inputs, **options)  # type: ignore[arg-type]  # any shape
    assert [one.index for one in answer.data] == list(range(len(answer.data)))
    return [one.embedding for one in answer.data]


def refusal(client: OpenAI, inputs: object, **options: Any) -> tuple[str | None, str | None, str]:
    with pytest.raises(BadRequestError) as refused:
        embed(client, inputs, extra_body=options)
    return refused.value.code, refused.value.param, refused.value.message


def test_the_default_and_floats_have_equal_bits(client: OpenAI) -> None:
    # Without a format the SDK asks for base64 and decodes it.
    by_default, floats = embed(client, TEXTS), embed(client, TEXTS, encoding_format="float")

    assert by_default == floats
    assert {len(vector) for vector in floats} == {SIZE}
    assert all(sum(number**2 for number in vector) == pytest.approx(1, abs=1e-5) for vector in floats)


def test_base64_is_little_endian_float32(encoders: Platform) -> None:
    with http_client(encoders.root_url) as http:
        body = {"model": "tiny", "input": "w7 w8", "encoding_format": "base64"}
        coded = http.post("/v1/embeddings", json=body).json()
        plain = http.post("/v1/embeddings", json={"model": "tiny", "input": "w7 w8"}).json()

    data = base64.b64decode(coded["data"][0]["embedding"])
    assert list(struct.unpack(f"<{SIZE}f", data)) == plain["data"][0]["embedding"]
    assert coded["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    assert (coded["object"], coded["data"][0]["object"], coded["model"]) == ("list", "embedding", "tiny")


def test_ids_and_text_have_equal_vectors(client: OpenAI) -> None:
    ids = [[CLS, 7, 8, SEP], [CLS, 9, SEP]]

    assert embed(client, ids) == embed(client, ["w7 w8", "w9"])
    assert embed(client, ids[1]) == embed(client, "w9")


def test_a_text_among_others_has_the_vector_that_it_has_alone(client: OpenAI) -> None:
    together = embed(client, TEXTS)
    alone = [embed(client, text)[0] for text in TEXTS[::9]]

    for one, other in zip(together[::9], alone, strict=True):
        assert sum(map(float.__mul__, one, other)) > 0.9999


def test_too_long_is_refused_with_both_numbers_and_cut_where_that_is_asked(client: OpenAI) -> None:
    text = "w9 " * MAX_LEN

    code, param, message = refusal(client, ["w4", text])
    assert (code, param) == ("context_length_exceeded", "input[1]")
    assert f"{MAX_LEN} tokens" in message
    assert f"{MAX_LEN + 2} tokens" in message

    cut = client.embeddings.create(model="tiny", input=text, extra_body={"truncate_prompt_tokens": -1})
    shorter = client.embeddings.create(model="tiny", input=text, extra_body={"truncate_prompt_tokens": 10})
    assert cut.usage.prompt_tokens == MAX_LEN
    assert cut.data[0].embedding == embed(client, "w9 " * (MAX_LEN - 2))[0]
    assert shorter.usage.total_tokens == 10
    assert embed(client, [CLS, *[9] * 60], extra_body={"truncate_prompt_tokens": 5}) == embed(client, [CLS, 9, 9, 9, 9])


def test_dimensions_are_cut_and_made_units_again(client: OpenAI) -> None:
    (whole,), (cut,) = embed(client, "w5 w6"), embed(client, "w5 w6", dimensions=16)

    length = sum(number**2 for number in whole[:16]) ** 0.5
    assert cut == pytest.approx([number / length for number in whole[:16]], abs=1e-6)
    assert embed(client, "w5 w6", dimensions=SIZE) == [whole]
    for wanted in (17, SIZE + 1):
        code, param, message = refusal(client, "w5", dimensions=wanted)
        assert (code, param) == ("invalid_request", "dimensions")
        assert f"16, {SIZE}" in message


def test_queries_get_the_models_prompt(client: OpenAI) -> None:
    assert embed(client, "w9", extra_body={"input_type": "query"}) == embed(client, "w5 w6 w9")
    assert embed(client, "w9", extra_body={"input_type": "document"}) == embed(client, "w9")
    assert refusal(client, [CLS, 9, SEP], input_type="query")[1] == "input_type"


def test_vectors_can_be_left_as_they_are(client: OpenAI) -> None:
    (plain,) = embed(client, "w5 w6", extra_body={"normalize": False})

    assert sum(number**2 for number in plain) != pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("inputs", "param"),
    [
        ("", "input"),
        ([], "input"),
        (["w4", "", "w5"], "input[1]"),
        ([[4], []], "input[1]"),
        ([4, 999], "input"),
        ([[4], [5, 999]], "input[1]"),
        ([4, -1], "input[1]"),
        (["w4", 5], "input[1]"),
        ([["w4"]], "input[0][0]"),
        ({"text": "w4"}, "input"),
        (["w4"] * 2049, "input"),
        ([[9] * 47] * 2048 + [[9]], "input"),
    ],
    ids=str,
)
def test_inputs_that_cannot_be_read_are_refused_by_their_place(client: OpenAI, inputs: object, param: str) -> None:
    assert refusal(client, inputs)[1] == param


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", True),
        ("temperature", 0.5),
        ("encoding_format", "int8"),
        ("truncate_prompt_tokens", 0),
        ("truncate_prompt_tokens", 2),
        ("truncate_prompt_tokens", MAX_LEN + 1),
        ("truncate_prompt_tokens", 1 << 40),
        ("input_type", "passage"),
        ("dimensions", 0),
        ("dimensions", True),
        ("background", True),
    ],
)
def test_fields_that_are_not_supported_are_refused_by_name(client: OpenAI, field: str, value: object) -> None:
    assert refusal(client, "w4 " * 100, **{field: value})[1] == field


def test_the_wrong_kind_of_model_is_refused_both_ways(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as embedding:
        client.embeddings.create(model="demo", input="hello")
    with pytest.raises(BadRequestError) as chat:
        client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "w4"}])
    with pytest.raises(BadRequestError) as completion:
        client.completions.create(model="tiny", prompt="w4")

    for refused in (embedding, chat, completion):
        assert (refused.value.code, refused.value.param) == ("model_capability_missing", "model")
    with pytest.raises(NotFoundError):
        client.embeddings.create(model="none", input="hello")


def test_models_say_what_they_make(client: OpenAI) -> None:
    tiny, demo = (client.models.retrieve(model).model_dump() for model in ("tiny", "demo"))

    assert (tiny["capabilities"]["embedding"], tiny["dimensions"], tiny["context_length"]) == (True, SIZE, MAX_LEN)
    assert (tiny["capabilities"]["completion"], tiny["tool_format"]) == (False, None)
    assert (demo["capabilities"]["embedding"], demo["dimensions"]) == (False, None)


def test_embeddings_are_jobs_that_run_in_background_and_are_read_later(encoders: Platform, client: OpenAI) -> None:
    with http_client(encoders.root_url) as http:
        created = http.post(
            "/v1/embeddings",
            json={"model": "tiny", "input": TEXTS, "metadata": {"of": "test"}, "service_tier": "flex"},
            headers={"prefer": "respond-async"},
        )
        assert created.status_code == 202
        assert (created.json()["object"], created.json()["id"][:5]) == ("async.embedding", "embd-")
        location = created.headers["location"]
        done = http.post("/v1/embeddings", json={"model": "tiny", "input": TEXTS}, headers={"prefer": "wait=60"})
        while "status" in (found := http.get(location).json()):
            assert found["status"] in ("queued", "in_progress")

        assert found["data"] == done.json()["data"]
        assert found["service_tier"] == "flex"
        assert http.get(location, params={"stream": "true"}).status_code == 400
        assert http.delete(location).json() == {"id": found["id"], "object": "embedding.deleted", "deleted": True}
        assert http.get(location).status_code == 404


def test_a_repeated_request_with_a_key_is_the_same_job(client: OpenAI) -> None:
    key = {"Idempotency-Key": "embeddings-once"}

    first = client.embeddings.create(model="tiny", input=TEXTS, extra_headers=key)
    second = client.embeddings.create(model="tiny", input=TEXTS, extra_headers=key)

    assert first.model_dump() == second.model_dump()
    with pytest.raises(UnprocessableEntityError):
        client.embeddings.create(model="tiny", input="w4", extra_headers=key)


PAGE = (Path(__file__).parents[2] / "docs" / "embeddings.md").read_text()
_WRITTEN_URL = "http://127.0.0.1:8000"


def blocks_of(language: str) -> list[str]:
    """The examples of the page, for a tiny encoder."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [block.replace('"minilm"', '"tiny"') for block in blocks]


def test_the_examples_of_the_page_run(encoders: Platform, tmp_path: Path) -> None:
    (program,), (line, *_) = blocks_of("python"), blocks_of("sh")
    script = tmp_path / "pasted.py"
    script.write_text(program.replace(_WRITTEN_URL, encoders.root_url))

    for command in (
        [sys.executable, "-W", "error", str(script)],
        ["sh", "-c", line.replace(_WRITTEN_URL, encoders.root_url)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert "tokens" in done.stdout


def test_lines_of_a_batch_are_embeddings_too(encoders: Platform, client: OpenAI) -> None:
    requests = [
        {
            "custom_id": f"line-{place}",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": model, "input": TEXTS[place]},
        }
        for place, model in enumerate(["tiny", "demo", "tiny"])
    ]
    with http_client(encoders.root_url) as http:
        created = http.post(
            "/v1/batches", json={"endpoint": "/v1/embeddings", "completion_window": "24h", "requests": requests}
        ).json()
        wait_until(lambda: client.batches.retrieve(created["id"]).status == "completed", 60, "the batch's end")

    batch = client.batches.retrieve(created["id"])
    assert batch.request_counts is not None
    assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 1)
    lines = [json.loads(line) for line in client.files.content(batch.output_file_id or "").text.splitlines()]
    found = {line["custom_id"]: line["response"]["body"]["data"][0]["embedding"] for line in lines}
    assert found == {f"line-{place}": embed(client, TEXTS[place], encoding_format="float")[0] for place in (0, 2)}
    assert "model_capability_missing" in client.files.content(batch.error_file_id or "").text


@pytest.mark.parametrize(
    ("program", "package"),
    [("langchain_embeddings", "langchain_openai"), ("llama_index_embeddings", "llama_index")],
)
def test_frameworks_embed(encoders: Platform, program: str, package: str) -> None:
    run_framework(program, package, encoders.base_url)


def test_embeddings_survive_the_death_of_their_worker(encoders: Platform, client: OpenAI) -> None:
    inputs = [[CLS, *[4 + (place + word) % 100 for word in range(MAX_LEN - 2)], SEP] for place in range(2048)]
    with http_client(encoders.root_url) as http:
        created = http.post(
            "/v1/embeddings", json={"model": "tiny", "input": inputs}, headers={"prefer": "respond-async"}
        )
        location = created.headers["location"]
        wait_until(lambda: http.get(location).json().get("status") != "queued", 30, "a claim")
        was_running = http.get(location).json().get("status") == "in_progress"
        for pid in encoders.pids_of("generation worker"):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "status" not in http.get(location).json(), 60, "the vectors")
        found = http.get(location).json()

    assert was_running
    assert [one["index"] for one in found["data"]] == list(range(2048))
    assert found["usage"]["prompt_tokens"] == 2048 * MAX_LEN
    for place in (0, 1024, 2047):
        (again,) = embed(client, [inputs[place]], encoding_format="float")
        assert sum(map(float.__mul__, again, found["data"][place]["embedding"])) > 0.9999
