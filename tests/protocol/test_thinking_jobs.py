"""Jobs that think: what they store and run, and what both wires show."""

import json
from typing import Any

import pytest

from api.protocol.chat.request import ChatRequest
from api.protocol.jobs.prepared import Prepared, Terms
from api.protocol.kinds import KINDS, fold_of, object_of
from api.protocol.responses.prepare import count_input_tokens
from api.protocol.responses.request import ResponseRequest
from api.protocol.responses.stored_items import StoredTurn, previous_of
from api.protocol.shared.job_request import JobRequest
from api.protocol.thinking.signed_thoughts import signed_thought, thought_key
from storage.contract import FinishReason, JobHeader, JobKind, JobStatus, LogEntry
from storage.errors import InvalidEncryptedContent, InvalidRequest, ReasoningNotSupported
from tests.protocol.examples import end, event, header, payloads, start, tokens, tools

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{% if m.reasoning_content %}({{ m.reasoning_content }}){% endif %}"
    "{{ m.content }}\n{% endfor %}[assistant]"
    "{% if enable_thinking is defined and enable_thinking is true %}<think>\n"
    "{% elif enable_thinking is defined %}<think>\n\n</think>\n\n{% endif %}"
)
PLAIN = "{% for m in messages %}[{{ m.role }}]{{ m.content }}\n{% endfor %}[assistant]"
KEY = thought_key(b"pepper", "project", "demo")
USER = {"role": "user", "content": "4?"}


def prepared(request_type: type[JobRequest], body: dict[str, object], template: str = TEMPLATE) -> Prepared:
    request = request_type.parse(json.dumps({"model": "demo", **body}).encode())
    return KINDS[request.kind].prepare(request, tools(template), Terms(seed=1, thought_key=KEY))


def chat(**fields: object) -> Prepared:
    return prepared(ChatRequest, {"messages": [USER], **fields})


def response(**fields: object) -> Prepared:
    return prepared(ResponseRequest, {"input": "4?", **fields})


def prompt_of(job: Prepared) -> str:
    return tools(TEMPLATE).decode(job.spec.prompts[0])


def header_of(job: Prepared) -> JobHeader:
    context = json.loads(json.dumps(job.context))
    return header(job.kind, request=job.request, context=context)


def log_of(*texts: str) -> list[LogEntry]:
    events = [event(text) for text in texts[:-1]] + [event(texts[-1], finish=FinishReason.STOP)]
    return [
        start(),
        *(tokens(index, one) for index, one in enumerate(events, 1)),
        end(len(events) + 1, JobStatus.COMPLETED),
    ]


def test_a_job_does_not_think_unless_asked() -> None:
    for job in (chat(), response(), chat(reasoning_effort="none"), response(reasoning={"effort": "none"})):
        assert job.spec.output is None
        assert "parser" not in job.context
        assert prompt_of(job).endswith("<think>\n\n</think>\n\n")


@pytest.mark.parametrize(
    "job",
    [
        chat(reasoning_effort="low"),
        response(reasoning={"effort": "low"}),
        chat(chat_template_kwargs={"enable_thinking": True}, thinking_token_budget=1024),
        response(thinking_token_budget=1024),
    ],
)
def test_a_job_that_is_asked_to_think_has_a_budget_and_begins_in_its_thought(job: Prepared) -> None:
    assert prompt_of(job).endswith("[assistant]<think>\n")
    assert job.spec.output is not None
    assert job.spec.output.thinking is not None
    assert job.spec.output.thinking.max_tokens == 1024
    assert job.spec.output.thinking.is_open
    assert job.context["parser"] == {
        "name": "generic",
        "state": "thinking",
        "tokens": [],
        "reads_thoughts": True,
        "reads_calls": False,
        "template": None,
    }


def test_a_template_without_thoughts_refuses_an_effort_by_its_field() -> None:
    for request_type, body, param in (
        (ChatRequest, {"messages": [USER], "reasoning_effort": "low"}, "reasoning_effort"),
        (ResponseRequest, {"input": "x", "reasoning": {"effort": "low"}}, "reasoning.effort"),
        (ChatRequest, {"messages": [USER], "thinking_token_budget": 4}, "thinking_token_budget"),
    ):
        with pytest.raises(ReasoningNotSupported) as refused:
            prepared(request_type, body, PLAIN)
        assert refused.value.param == param
    with pytest.raises(InvalidRequest) as unread:
        prepared(ChatRequest, {"messages": [USER], "chat_template_kwargs": {"enable_thinking": False}}, PLAIN)
    assert unread.value.param == "chat_template_kwargs.enable_thinking"


def test_a_chat_shows_its_thought_in_stream_and_answer() -> None:
    job = header_of(chat(reasoning_effort="low"))
    log = log_of("Two and ", "two.\n</thi", "nk>\n\nIt is", " 4.")
    fold = fold_of(job)
    deltas = [chunk["choices"][0]["delta"] for chunk in _chunks([*fold.open(), *_fed(fold, log)]) if chunk["choices"]]
    message = _dict(object_of(job, log))["choices"][0]["message"]

    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Two and two."
    assert "".join(delta.get("content", "") for delta in deltas) == "It is 4."
    assert (message["reasoning_content"], message["content"]) == ("Two and two.", "It is 4.")


@pytest.mark.parametrize("field", ["include_reasoning", "separate_reasoning"])
def test_a_thought_that_is_not_wanted_is_not_shown(field: str) -> None:
    job = header_of(chat(reasoning_effort="low", **{field: False}))
    log = log_of("secret</think>4")

    assert b"secret" not in b"".join(_fed(fold_of(job), log))
    assert "reasoning_content" not in _dict(object_of(job, log))["choices"][0]["message"]
    assert _dict(object_of(job, log))["choices"][0]["message"]["content"] == "4"


def test_a_thought_that_the_limit_cut_leaves_no_content() -> None:
    job = header_of(response(reasoning={"effort": "low"}))
    log = [start(), tokens(1, event("Two and", finish=FinishReason.LENGTH)), end(2, JobStatus.INCOMPLETE)]

    output = _dict(object_of(job, log))["output"]

    assert [(item["type"], item["status"]) for item in output] == [("reasoning", "incomplete")]


def test_a_signed_thought_comes_back_to_the_prompt() -> None:
    job = header_of(response(reasoning={"effort": "low"}, include=["reasoning.encrypted_content"], store=False))
    log = log_of("Two and two.</think>4")
    item = _dict(object_of(job, log))["output"][0]
    frames = payloads(_fed(fold_of(job), log))
    done = [_dict(one) for one in frames if _dict(one)["type"] == "response.output_item.done"]

    back = prepared(
        ResponseRequest,
        {
            "input": [
                {"role": "user", "content": "4?"},
                {"type": "reasoning", "id": item["id"], "summary": [], "encrypted_content": item["encrypted_content"]},
                {"role": "assistant", "content": "4"},
                {"role": "user", "content": "Sure?"},
            ]
        },
    )

    assert done[0]["item"]["encrypted_content"] == item["encrypted_content"]
    assert "[assistant](Two and two.)4\n[user]Sure?" in prompt_of(back)


def test_without_include_there_is_no_signed_form_and_a_plain_job_may_ask_for_it() -> None:
    job = header_of(response(reasoning={"effort": "low"}))

    assert "encrypted_content" not in _dict(object_of(job, log_of("a</think>b")))["output"][0]
    assert response(include=["reasoning.encrypted_content"]).spec.output is None


@pytest.mark.parametrize(
    "content", ["tpt1.AAAA", signed_thought("a", thought_key(b"pepper", "other", "demo")), "x", ""]
)
def test_a_forged_or_foreign_signed_form_is_refused(content: str) -> None:
    items = [{"type": "reasoning", "summary": [], "encrypted_content": content}, {"role": "user", "content": "x"}]

    with pytest.raises(InvalidRequest) as refused:
        prepared(ResponseRequest, {"input": items})

    if content:
        assert isinstance(refused.value, InvalidEncryptedContent)
        assert refused.value.param == "input[0].encrypted_content"


def test_only_thoughts_of_the_current_turn_are_shown_where_no_others_count() -> None:
    items = [
        {"role": "user", "content": "a"},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "old"}]},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]

    shown = prepared(ResponseRequest, {"input": items, "reasoning": {"context": "all_turns"}})
    hidden = prepared(ResponseRequest, {"input": items, "reasoning": {"context": "current_turn"}})

    assert "(old)b" in prompt_of(shown)
    assert "old" not in prompt_of(hidden)
    counted = ResponseRequest.parse(json.dumps({"model": "demo", "input": items}).encode())
    num_tokens = count_input_tokens(counted, tools(TEMPLATE), thought_key=KEY)["input_tokens"]
    assert num_tokens == len(shown.spec.prompts[0])


def test_a_stored_thought_is_part_of_the_next_turn() -> None:
    first = response(reasoning={"effort": "low"}, include=["reasoning.encrypted_content"])
    job = header_of(first)
    answer = _dict(object_of(job, log_of("Two and two.</think>4")))
    previous = previous_of([StoredTurn(job_id=job.job_id, context=first.context)], job, answer)
    request = ResponseRequest.parse(
        json.dumps({"model": "demo", "input": "Sure?", "previous_response_id": job.job_id}).encode()
    )

    again = KINDS[request.kind].prepare(request, tools(TEMPLATE), Terms(seed=1, previous=previous))

    assert "[user]4?\n[assistant](Two and two.)4\n[user]Sure?" in prompt_of(again)
    assert "encrypted_content" not in json.dumps(again.context)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_a_chats_history_may_name_a_thought_either_way(name: str) -> None:
    messages = [USER, {"role": "assistant", "content": "4", name: "Hm."}, {"role": "user", "content": "Sure?"}]

    job = prepared(ChatRequest, {"messages": messages})

    assert "[assistant](Hm.)4" in prompt_of(job)


def test_a_template_gets_a_thought_under_the_name_that_it_reads() -> None:
    template = (
        "{% for m in messages %}[{{ m.role }}]{% if m.thinking %}<{{ m.thinking }}>{% endif %}{{ m.content }}"
        "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function.name }}"
        "{{ c.function.arguments | tojson }}{% endfor %}"
        "{% endfor %}"
    )
    call = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    said = {"role": "assistant", "content": "First.", "reasoning_content": "Hm.", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c", "content": "noon"}
    answer = {"role": "assistant", "content": "Noon.", "reasoning_content": "So."}

    job = prepared(ChatRequest, {"messages": [USER, said, result, answer, USER]}, template)

    prompt = tools(template).decode(job.spec.prompts[0])
    assert "[assistant]<Hm.\nFirst.><tool_call>now{}[tool]noon[assistant]<So.>Noon." in prompt


def test_two_thoughts_of_one_message_must_agree() -> None:
    message = {"role": "assistant", "content": "4", "reasoning": "a", "reasoning_content": "b"}
    both = {"role": "assistant", "content": "4", "reasoning": "", "reasoning_content": "b"}

    with pytest.raises(InvalidRequest) as refused:
        prepared(ChatRequest, {"messages": [USER, message, USER]})

    assert refused.value.param == "messages[1].reasoning_content"
    assert "(b)4" in prompt_of(prepared(ChatRequest, {"messages": [USER, both, USER]}))


def test_a_model_that_always_thinks_is_read_without_being_asked() -> None:
    template = "{{ messages[0].content }}<think>\n"

    job = prepared(ChatRequest, {"messages": [USER]}, template)

    assert job.spec.output is not None
    assert job.spec.output.thinking is not None
    assert job.spec.output.thinking.max_tokens is None
    with pytest.raises(ReasoningNotSupported):
        prepared(ChatRequest, {"messages": [USER], "reasoning_effort": "none"}, template)


def _dict(value: object) -> dict[str, Any]:  # Any: JSON
    assert isinstance(value, dict)
    return value


def _chunks(frames: list[bytes]) -> list[dict[str, Any]]:  # Any: JSON
    return [_dict(one) for one in payloads(frames)]


def _fed(fold: Any, log: list[LogEntry]) -> list[bytes]:  # Any: a fold of either wire
    return [frame for entry in log for frame in fold.feed(entry)]


def test_kinds_are_those_of_both_wires() -> None:
    assert {chat().kind, response().kind} == {JobKind.CHAT, JobKind.RESPONSE}
