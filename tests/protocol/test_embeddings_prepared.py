"""Embedding requests as specs: prompts, limits in all, cuts that keep the special tokens, and objects from results."""

import base64
import struct
from functools import cache
from typing import Any

import pytest
from openai.types import CreateEmbeddingResponse
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from api.protocol.embeddings.request import EmbeddingRequest
from api.protocol.embeddings.text_inputs import TextInputs
from api.protocol.kinds import object_of, prepare, receipt_of
from api.protocol.prompt.tokenizing import PromptTools
from storage.contract import End, Failure, JobHeader, JobKind, JobStatus, Usage
from storage.embedding_job import EmbeddingResult, EmbeddingSpec
from storage.errors import ContextLengthExceeded, InvalidRequest, ModelCapabilityMissing
from storage.model_manifest import EmbeddingAbilities, ModelManifest
from tests.protocol.examples import body, tools

CLS, SEP = 1, 2
VECTORS = (0.1, -2.5, 1 / 3, 1e-30)


@cache
def encoder(context_length: int = 500, default_prompt: str = "") -> PromptTools:
    """An encoder that was never loaded."""
    words = {"<pad>": 0, "<cls>": CLS, "<sep>": SEP, "<unk>": 3} | {f"w{number}": number for number in range(4, 100)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<cls> $A <sep>", pair="<cls> $A <sep> $B:1 <sep>:1", special_tokens=[("<cls>", CLS), ("<sep>", SEP)]
    )
    return PromptTools(
        ModelManifest(
            model="demo",
            context_length=context_length,
            tokenizer_json=tokenizer.to_str(),
            chat_template=None,
            special_tokens={"cls_token": "<cls>"},
            capabilities={"completion": False, "embedding": True},
            embedding=EmbeddingAbilities(
                dimensions=2,
                prompts={"search_query": "w90 ", "passage": "w91 "},
                default_prompt=default_prompt,
                is_normalized=True,
            ),
        )
    )


def spec_of(model: PromptTools | None = None, **fields: object) -> EmbeddingSpec:
    spec = prepare(EmbeddingRequest.parse(body(**fields)), model or encoder(), seed=1).spec
    assert isinstance(spec, EmbeddingSpec)
    return spec


def header(**request: object) -> JobHeader:
    return JobHeader(job_id="embd-1", kind=JobKind.EMBEDDING, model="demo", created_at=7, request=request, context={})


def ended(status: JobStatus, failure: Failure | None = None) -> End:
    usage = Usage(prompt_tokens=9, completion_tokens=0)
    return End(status=status, usage=usage, ended_at=9, failure=failure)


def test_a_spec_holds_ids_priority_and_options() -> None:
    spec = spec_of(input=["w4 w5", "w6"], normalize=False, service_tier="priority")

    assert spec == EmbeddingSpec(inputs=((CLS, 4, 5, SEP), (CLS, 6, SEP)), is_normalized=False, priority=spec.priority)
    assert spec.priority_queue == "priority"


def test_prompts_stand_before_texts_by_their_type() -> None:
    assert spec_of(input="w4", input_type="query").inputs == ((CLS, 90, 4, SEP),)
    assert spec_of(input="w4", input_type="document").inputs == ((CLS, 91, 4, SEP),)
    assert spec_of(input="w4").inputs == ((CLS, 4, SEP),)
    by_default = encoder(default_prompt="w80 ")
    assert spec_of(by_default, input="w4").inputs == ((CLS, 80, 4, SEP),)
    assert spec_of(by_default, input=[4, 5]).inputs == ((4, 5),)


def test_a_request_may_have_300_000_tokens_in_all() -> None:
    assert len(spec_of(input=[[9] * 500] * 600).inputs) == 600

    with pytest.raises(InvalidRequest, match=r"300000 tokens in all.* 300001") as refused:
        spec_of(input=[[9] * 500] * 600 + [[9]])
    assert refused.value.param == "input"


def test_a_text_far_beyond_the_context_is_not_tokenized_to_its_end() -> None:
    with pytest.raises(ContextLengthExceeded) as refused:
        spec_of(input=["w4", "w9 " * 1_000_000])

    assert refused.value.param == "input[1]"
    # Not its four million characters: sixteen for each token of the context.
    assert "at least 2669 tokens" in refused.value.message


def test_a_text_of_rare_spaces_is_read_whole() -> None:
    text = " " * 9000 + "w4"

    assert spec_of(input=text).inputs == ((CLS, 4, SEP),)


def test_a_cut_text_keeps_its_special_tokens() -> None:
    texts = TextInputs(encoder().tokenizer, 500)

    (single,) = texts.encode(["w4 w5 w6 w7"], limit=4)
    (pair,) = texts.encode([("w4 w5", "w6 w7 w8")], limit=7)
    (whole,) = texts.encode([("w4", "w6")], limit=7)

    assert single.token_ids == (CLS, 4, 5, SEP)
    assert (pair.token_ids, pair.second_start) == ((CLS, 4, 5, SEP, 6, 7, SEP), 4)
    assert (whole.token_ids, whole.second_start) == ((CLS, 4, SEP, 6, SEP), 3)
    with pytest.raises(InvalidRequest, match="none for the text"):
        texts.encode([("w4 w5 w6 w7", "w6")], limit=7)


def test_a_model_that_generates_makes_no_embeddings() -> None:
    with pytest.raises(ModelCapabilityMissing, match="makes no embeddings"):
        spec_of(tools(), input="hello")


def test_a_result_is_shown_as_floats_or_base64_of_equal_bits() -> None:
    data = struct.pack("<4f", *VECTORS)
    result = EmbeddingResult(dimensions=2, numbers=data)

    floats: Any = object_of(header(), result, ended(JobStatus.COMPLETED))
    coded: Any = object_of(header(encoding_format="base64"), result, ended(JobStatus.COMPLETED))

    assert [one["embedding"] for one in floats["data"]] == [
        list(struct.unpack("<2f", data[:8])),
        list(struct.unpack("<2f", data[8:])),
    ]
    assert b"".join(base64.b64decode(one["embedding"]) for one in coded["data"]) == data
    assert floats["usage"] == {"prompt_tokens": 9, "total_tokens": 9}
    assert CreateEmbeddingResponse.model_validate(floats).data[1].index == 1


def test_a_job_without_vectors_says_why() -> None:
    running: Any = object_of(header(), ())
    failed: Any = object_of(header(), (), ended(JobStatus.FAILED, Failure(code="engine_fault", message="No.")))
    receipt: Any = receipt_of(header(), ())

    assert (running["data"], running["status"], running["usage"]) == ([], "queued", None)
    assert (failed["status"], failed["error"]["code"]) == ("failed", "engine_fault")
    assert (receipt["object"], receipt["status"]) == ("async.embedding", "queued")
