"""What is stored and run for a request."""

import time

import msgspec
import pytest

from api.protocol.chat.request import ChatRequest
from api.protocol.completions.request import CompletionRequest
from api.protocol.kinds import object_of, prepare
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.responses.prepare import count_input_tokens
from api.protocol.responses.request import InputTokensRequest, ResponseRequest
from api.protocol.responses.stored_items import PreviousResponse, StoredTurn, input_items_of, previous_of
from storage.contract import JobKind, JobSpec
from storage.errors import ContextLengthExceeded, InvalidRequest
from tests.protocol.examples import CHATML, GEMMA, body, end, event, header, tokens, tools

USER = {"role": "user", "content": "hi"}


def text_of(spec: JobSpec, prompt_tools: PromptTools) -> str:
    return prompt_tools.decode(spec.prompts[0])


def chat(**fields: object) -> ChatRequest:
    return ChatRequest.parse(body(**{"messages": [USER], **fields}))


def response(**fields: object) -> ResponseRequest:
    return ResponseRequest.parse(body(**{"input": "hi", **fields}))


def completion(**fields: object) -> CompletionRequest:
    return CompletionRequest.parse(body(**{"prompt": "hi", **fields}))


def test_a_chat_becomes_a_rendered_prompt_and_its_sampling() -> None:
    request = chat(temperature=0, top_p=0.5, top_k=7, seed=5, stop=["a", "b"], max_tokens=9, n=2, metadata={"k": "v"})

    prepared = prepare(request, tools(), seed=1)

    sampling = prepared.spec.sampling
    assert text_of(prepared.spec, tools()) == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.seed) == (0.0, 0.5, 7, 5)
    assert (sampling.stop, sampling.max_tokens, prepared.spec.num_choices) == (("a", "b"), 9, 2)
    assert (prepared.store, prepared.stream, prepared.metadata) == (False, False, {"k": "v"})
    assert prepared.kind is JobKind.CHAT


def test_defaults_are_those_of_the_protocol() -> None:
    prompt_tools = tools(context_length=100)

    asked = prepare(response(), prompt_tools, seed=77)
    chatted = prepare(chat(), prompt_tools, seed=77)
    completed = prepare(completion(), prompt_tools, seed=77)

    rest = 100 - len(chatted.spec.prompts[0])
    assert (asked.store, chatted.store, completed.store) == (True, False, False)
    limits = [one.spec.sampling.max_tokens for one in (asked, chatted, completed)]
    assert limits == [rest, rest, 16]
    assert {one.spec.sampling.seed for one in (asked, chatted, completed)} == {77}


def test_a_path_may_have_its_own_default_of_store_but_the_request_wins() -> None:
    assert prepare(chat(), tools(), seed=1, store_default=True).store
    assert not prepare(chat(store=False), tools(), seed=1, store_default=True).store


def test_a_nucleus_of_nothing_still_holds_one_token() -> None:
    assert 0 < prepare(chat(top_p=0), tools(), seed=1).spec.sampling.top_p < 0.001


def test_parts_of_a_message_stand_on_lines_of_their_own() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]

    prepared = prepare(chat(messages=[{"role": "user", "content": parts}]), tools(), seed=1)

    assert "one\ntwo<|im_end|>" in text_of(prepared.spec, tools())


def test_what_is_stored_survives_json() -> None:
    prepared = prepare(response(metadata={"a": "b"}, temperature=1), tools(), seed=1)

    for value in (prepared.request, prepared.context, prepared.metadata):
        assert msgspec.json.decode(msgspec.json.encode(value)) == value


def test_instructions_come_first_and_join_a_leading_system_message() -> None:
    messages = [{"role": "system", "content": "Be kind."}, USER]

    prepared = prepare(response(input=messages, instructions="Be brief."), tools(), seed=1)

    assert text_of(prepared.spec, tools()).startswith(
        "<|im_start|>system\nBe brief.\n\nBe kind.<|im_end|>\n<|im_start|>user"
    )
    assert prepared.context["input_items"] == [
        {
            "type": "message",
            "role": "system",
            "status": "completed",
            "content": [{"type": "input_text", "text": "Be kind."}],
        },
        {
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": "hi"}],
        },
    ]


@pytest.mark.parametrize("roles", [("developer",), ("system", "developer"), ("developer", "system", "system")])
def test_instructions_and_all_leading_system_items_are_one_turn(roles: tuple[str, ...]) -> None:
    leading = [{"role": role, "content": role} for role in roles]

    prepared = prepare(response(input=[*leading, USER], instructions="Be brief."), tools(), seed=1)

    joined = "\n\n".join(("Be brief.", *roles))
    assert text_of(prepared.spec, tools()).startswith(f"<|im_start|>system\n{joined}<|im_end|>\n<|im_start|>user")


@pytest.mark.parametrize("phase", ["commentary", "final_answer", None])
def test_the_phase_of_an_answer_is_kept_and_returned(phase: str | None) -> None:
    answer = {"role": "assistant", "content": "hello", "phase": phase}

    prepared = prepare(response(input=[USER, answer, USER]), tools(), seed=1)

    items = input_items_of([StoredTurn(job_id="resp_1", context=prepared.context)])
    assert [item.get("phase", "absent") for item in items] == ["absent", phase, "absent"]


def test_a_phase_is_refused_elsewhere() -> None:
    for wrong in ({**USER, "phase": "commentary"}, {"role": "assistant", "content": "x", "phase": "dreaming"}):
        with pytest.raises(InvalidRequest) as refusal:
            response(input=[wrong])
        assert refusal.value.param == "input[0].phase"


def test_top_k_of_minus_one_is_off() -> None:
    assert prepare(chat(top_k=-1), tools(), seed=1).spec.sampling.top_k == 0


def test_a_turn_goes_on_from_the_previous_one_without_its_instructions() -> None:
    first = prepare(response(instructions="Be brief."), tools(), seed=1)
    first_header = header(JobKind.RESPONSE, first.request, first.context)
    answer = object_of(first_header, [tokens(1, event("hello")), end(2)])

    turns = [StoredTurn(job_id=first_header.job_id, context=first.context)]
    previous = previous_of(turns, first_header, answer)
    second = prepare(response(input="more"), tools(), previous=previous, seed=1)

    assert text_of(second.spec, tools()) == (
        "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n"
        "<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n"
    )
    turns.append(StoredTurn(job_id="resp_two", context=second.context))
    ids = [item["id"] for item in input_items_of(turns)]
    output = answer["output"]
    assert isinstance(output, list)
    assert ids == [input_items_of(turns[:1])[0]["id"], output[0]["id"], "msg_twoi2"]


def test_input_items_never_share_an_id() -> None:
    twin = {**USER, "id": "msg_x"}
    prepared = prepare(response(input=[twin, twin, USER]), tools(), seed=1)

    items = input_items_of([StoredTurn(job_id="resp_1", context=prepared.context)])

    assert items[0]["id"] == "msg_x"
    assert len({item["id"] for item in items}) == 3


def test_a_response_may_go_on_without_new_input() -> None:
    previous = PreviousResponse(
        job_id="resp_1",
        input_items=[
            {"id": "msg_1", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]}
        ],
        output_items=[],
    )

    request = ResponseRequest.parse(body(previous_response_id="resp_1"))
    prepared = prepare(request, tools(), previous=previous, seed=1)

    assert "hi<|im_end|>" in text_of(prepared.spec, tools())


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (response(input="x" * 200), "input"),
        (response(max_output_tokens=90), "input"),
        (chat(messages=[{"role": "user", "content": "x" * 200}]), "messages"),
        (chat(max_tokens=2**63 - 1), "messages"),
        (completion(prompt="x" * 100), "prompt"),
        (completion(prompt=["x", "x" * 90]), "prompt"),
    ],
)
def test_what_does_not_fit_the_context_is_refused(
    request_: ResponseRequest | ChatRequest | CompletionRequest, param: str
) -> None:
    with pytest.raises(ContextLengthExceeded, match="maximum context length is 100 tokens") as refusal:
        prepare(request_, tools(context_length=100), seed=1)

    assert refusal.value.param == param


def turns(count: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[index % 2], "content": f"turn {index:05}"} for index in range(count)]


def test_truncation_drops_the_oldest_turns_and_keeps_the_system_message() -> None:
    prompt_tools = tools(context_length=300)
    messages = [{"role": "system", "content": "Be brief."}, *turns(31)]

    with pytest.raises(ContextLengthExceeded):
        prepare(response(input=messages), prompt_tools, seed=1)
    prepared = prepare(response(input=messages, truncation="auto"), prompt_tools, seed=1)

    text = text_of(prepared.spec, prompt_tools)
    kept = [index for index in range(31) if f"turn {index:05}" in text]
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")
    assert kept == list(range(kept[0], 31))
    assert kept[0] % 2 == 0
    assert prepared.spec.sampling.max_tokens >= 300 // 8
    longer = prompt_tools.count([messages[0], *messages[kept[0] - 1 :]])
    assert longer + 300 // 8 > 300
    assert isinstance(prepared.context["input_items"], list)
    assert len(prepared.context["input_items"]) == 32


def test_truncation_leaves_alone_what_fits_and_refuses_what_never_will() -> None:
    prompt_tools = tools(context_length=300)
    fitting = prepare(response(input=turns(3), truncation="auto"), prompt_tools, seed=1)
    plain = prepare(response(input=turns(3)), prompt_tools, seed=1)

    assert fitting.spec == plain.spec
    with pytest.raises(ContextLengthExceeded):
        prepare(response(input=[*turns(2), {**USER, "content": "x" * 400}], truncation="auto"), prompt_tools, seed=1)


def test_truncation_of_very_many_turns_is_quick() -> None:
    request = response(input=turns(20_001), truncation="auto")
    began = time.process_time()

    prepare(request, tools(), seed=1)

    assert time.process_time() - began < 5


def test_completions_take_texts_and_token_ids() -> None:
    prompt_tools = tools(bos=False)
    ids = list(prompt_tools.encode("hi", add_special_tokens=False))

    prompts = ["hi", ["hi", "ho"], ids, [ids, ids]]
    specs = [prepare(completion(prompt=prompt, n=2, echo=True), prompt_tools, seed=1) for prompt in prompts]

    assert [len(one.spec.prompts) for one in specs] == [1, 2, 1, 2]
    assert {one.spec.prompts[0] for one in specs} == {tuple(ids)}
    assert [one.context for one in specs] == [
        {"num_prompts": 1, "prompt_texts": ["hi"]},
        {"num_prompts": 2, "prompt_texts": ["hi", "ho"]},
        {"num_prompts": 1, "prompt_texts": ["hi"]},
        {"num_prompts": 2, "prompt_texts": ["hi", "hi"]},
    ]


@pytest.mark.parametrize("prompt", ["", ["x", ""], [10**6], [[1], [10**18]]])
def test_prompts_that_hold_no_token_of_the_model_are_refused(prompt: object) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        prepare(completion(prompt=prompt), tools(bos=False), seed=1)

    assert refusal.value.param == "prompt"


def test_a_template_that_renders_nothing_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no tokens"):
        prepare(chat(), tools("{{ '' }}"), seed=1)


def test_a_templates_refusal_names_the_field_of_the_protocol() -> None:
    with pytest.raises(InvalidRequest) as refusal:
        prepare(response(instructions="Be brief."), tools(GEMMA), seed=1)

    assert refusal.value.param == "input"


def test_input_tokens_are_those_of_the_prompt() -> None:
    raw = body(input="hi", instructions="Be brief.")
    prepared = prepare(ResponseRequest.parse(raw), tools(CHATML), seed=1)

    counted = count_input_tokens(InputTokensRequest.parse(raw), tools(CHATML))
    long = count_input_tokens(InputTokensRequest.parse(body(input="x" * 9_000)), tools(context_length=10))

    assert counted == {"object": "response.input_tokens", "input_tokens": len(prepared.spec.prompts[0])}
    assert long["input_tokens"] == 9_000 + len("user\n") + len("\n") + len("assistant\n") + 3
