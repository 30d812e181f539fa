"""Tool calls and results among the items of a response: rules, stored items, chains and truncation."""

import random

import pytest

from api.protocol.kinds import prepare
from api.protocol.prompt.token_budget import CHARACTERS_PER_TOKEN
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.responses.item_history import Item, messages_of_items
from api.protocol.responses.request import ResponseRequest
from api.protocol.responses.stored_items import (
    PreviousResponse,
    StoredTurn,
    context_of,
    input_items_of,
    items_of_context,
    newest_turns,
    previous_of,
)
from storage.contract import JobKind
from storage.errors import InvalidRequest, MissingToolOutput, PlatformError, UnknownCallId
from tests.protocol.examples import body, header, manifest
from tests.protocol.tool_templates import HERMES

USER: Item = {"role": "user", "content": "Oslo?"}


def call(call_id: str, arguments: object = "{}", **fields: object) -> Item:
    return {"type": "function_call", "call_id": call_id, "name": "weather", "arguments": arguments, **fields}


def custom_call(call_id: str, text: str) -> Item:
    return {"type": "custom_tool_call", "call_id": call_id, "name": "shell", "input": text}


def output(call_id: str, text: object = "rain", kind: str = "function_call_output") -> Item:
    return {"type": kind, "call_id": call_id, "output": text}


def said(text: str) -> Item:
    return {"role": "assistant", "content": text}


def items_of(*items: Item) -> list[Item]:
    """The items as they are stored."""
    return items_of_context(context_of(None, ResponseRequest.parse(body(input=list(items))).input))


def refusal_of(*items: Item) -> PlatformError:
    with pytest.raises(InvalidRequest) as refusal:
        messages_of_items(items_of(*items))
    return refusal.value


def test_calls_belong_to_the_message_before_them_and_results_follow_it() -> None:
    items = [
        USER,
        said("I look."),
        call("a", '{"city":"Oslo"}'),
        custom_call("b", "ls"),
        output(
            "b", [{"type": "input_text", "text": "x"}, {"type": "input_text", "text": "y"}], "custom_tool_call_output"
        ),
        output("a"),
        call("c"),
        output("c", ""),
        said("It rains."),
    ]

    messages = messages_of_items(items_of(*items))

    assert [message["role"] for message in messages] == [
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
        "tool",
        "assistant",
    ]
    assert messages[1] == {
        "role": "assistant",
        "content": "I look.",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
            {"id": "b", "type": "custom", "custom": {"name": "shell", "input": "ls"}},
        ],
    }
    assert messages[2:4] == [
        {"role": "tool", "tool_call_id": "a", "name": "weather", "content": "rain"},
        {"role": "tool", "tool_call_id": "b", "name": "shell", "content": "x\ny"},
    ]
    assert [message["content"] for message in messages[4:]] == ["", "", "It rains."]


def test_a_result_may_come_later_than_other_items_and_stands_behind_its_call() -> None:
    messages = messages_of_items(items_of(USER, call("a"), {"role": "user", "content": "Well?"}, output("a")))

    assert [message["role"] for message in messages] == ["user", "assistant", "tool", "user"]


def test_a_name_in_a_namespace_is_written_with_it() -> None:
    messages = messages_of_items(items_of(USER, call("a", namespace="crm"), output("a")))

    assert messages[1]["tool_calls"][0]["function"]["name"] == "crm.weather"  # type: ignore[index] # of a message
    assert messages[2]["name"] == "crm.weather"


def test_missing_and_unknown_results_are_refused() -> None:
    missing = [refusal_of(USER, call("a")), refusal_of(USER, call("a"), USER), refusal_of(USER, custom_call("a", ""))]
    unknown = [
        refusal_of(USER, output("a")),
        refusal_of(output("a"), call("a")),
        refusal_of(call("a"), output("a"), output("a")),
    ]

    for refusal in missing:
        assert isinstance(refusal, MissingToolOutput)
        assert (refusal.message, refusal.param) == ("No tool output found for function call a.", "input")
    for refusal in unknown:
        assert isinstance(refusal, UnknownCallId)
        assert refusal.message == "No tool call found for function call output with call_id a."
        assert refusal.param == "input"
    assert refusal_of(call("a"), call("a"), output("a")).param == "input"


def test_a_result_is_of_the_kind_of_its_call() -> None:
    custom = refusal_of(custom_call("a", "ls"), output("a"))
    function = refusal_of(call("b"), output("b", kind="custom_tool_call_output"))

    assert custom.message == "No tool call found for function call output with call_id a."
    assert function.message == "No tool call found for custom tool call output with call_id b."


@pytest.mark.parametrize("arguments", ["[1]", '{"a": 1', '"x"'])
def test_arguments_that_are_no_object_are_refused_with_their_path(arguments: str) -> None:
    assert refusal_of(USER, call("a", arguments), output("a")).param == "input[1].arguments"


def test_items_are_stored_as_they_were_sent_and_get_ids_of_their_types() -> None:
    sent = [
        call("a", None),
        call(
            "b",
            '{"x":1}',
            id="fc_1",
            namespace="crm",
            status="incomplete",
            parsed_arguments={},
            caller={"type": "direct"},
        ),
        custom_call("c", "ls"),
        output("a", [{"type": "input_text", "text": "x"}]),
        output("c", "y", "custom_tool_call_output"),
    ]

    items = input_items_of([StoredTurn(job_id="resp_1", context={"input_items": items_of(*sent)})])

    assert items == [
        {"id": "fc_1i0", **call("a", "{}"), "status": "completed"},
        {**call("b", '{"x":1}', namespace="crm"), "id": "fc_1", "status": "incomplete"},
        {"id": "ctc_1i2", **custom_call("c", "ls"), "status": "completed"},
        {"id": "fco_1i3", **output("a", [{"type": "input_text", "text": "x"}]), "status": "completed"},
        {"id": "ctco_1i4", **output("c", "y", "custom_tool_call_output"), "status": "completed"},
    ]


def turn_of(previous: PreviousResponse | None, job_id: str, *items: Item) -> StoredTurn:
    return StoredTurn(job_id=job_id, context=context_of(previous, ResponseRequest.parse(body(input=list(items))).input))


def answer_of(*items: Item) -> dict[str, object]:
    return {"output": list(items)}


def written(call_id: str, arguments: str, status: str = "completed") -> Item:
    """A call as an answer shows it."""
    return {"id": f"fc_{call_id}", **call(call_id, arguments), "status": status}


def test_a_chain_carries_calls_and_results() -> None:
    tools = PromptTools(manifest(HERMES))
    turns = [turn_of(None, "resp_0", USER)]
    previous = previous_of(turns, header(JobKind.RESPONSE), answer_of(written("call_1", '{"city":"Oslo"}')))

    request = ResponseRequest.parse(body(input=[output("call_1", "rain")], previous_response_id="resp_0"))
    prepared = prepare(request, tools, previous=previous, seed=1)

    assert tools.decode(prepared.spec.prompts[0]) == (
        "<|im_start|>user\nOslo?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n"
        '{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>tool\nrain<|im_end|>\n<|im_start|>assistant\n"
    )
    with pytest.raises(MissingToolOutput, match="call_1"):
        prepare(
            ResponseRequest.parse(body(input=[USER], previous_response_id="resp_0")), tools, previous=previous, seed=1
        )
    with pytest.raises(MissingToolOutput):
        prepare(ResponseRequest.parse(body(previous_response_id="resp_0")), tools, previous=previous, seed=1)


def test_a_call_that_the_model_did_not_finish_stays_as_it_was_written() -> None:
    tools = PromptTools(manifest(HERMES))
    cut = written("call_1", '{"city": "Os', "incomplete")
    previous = previous_of([turn_of(None, "resp_0", USER)], header(JobKind.RESPONSE), answer_of(cut))

    request = ResponseRequest.parse(body(input=[output("call_1", "?")], previous_response_id="resp_0"))
    prepared = prepare(request, tools, previous=previous, seed=1)

    assert '"arguments": "{\\"city\\": \\"Os"}' in tools.decode(prepared.spec.prompts[0])


def random_chain(generator: random.Random) -> list[StoredTurn]:
    """Turns of an agent: questions, and results of calls that the answers before them made."""
    turns: list[StoredTurn] = []
    previous: PreviousResponse | None = None
    open_calls: list[str] = []
    for number in range(60):
        items: list[Item] = [output(one, "r" * generator.randrange(20)) for one in open_calls]
        if not items or generator.random() < 0.3:
            items.append({"role": "user", "content": f"{number:02}" + "x" * generator.randrange(20)})
        turns.append(turn_of(previous, f"resp_{number}", *items))
        open_calls = [f"call_{number}_{index}" for index in range(generator.randrange(3))]
        answer = [written(one, '{"n":%d}' % number) for one in open_calls] or [  # noqa: UP031 - braces
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": f"a{number}"}]}
        ]
        previous = previous_of(turns, header(JobKind.RESPONSE), answer_of(*answer))
    return turns


@pytest.mark.parametrize("seed", range(20))
def test_truncation_never_cuts_between_a_call_and_its_result(seed: int) -> None:
    """The prompt is the same from the whole chain and from its end, and every result in it has its call."""
    tools = PromptTools(manifest(HERMES, context_length=300))
    turns = random_chain(random.Random(seed))
    newest, is_whole = newest_turns(turns[::-1], max_characters=CHARACTERS_PER_TOKEN * 300)
    assert turns[-len(newest) :] == newest
    last = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "last"}]}
    both = [
        previous_of(turns, header(JobKind.RESPONSE), answer_of(last)),
        previous_of(newest, header(JobKind.RESPONSE), answer_of(last), is_whole=is_whole),
    ]
    request = ResponseRequest.parse(body(input=[{"role": "user", "content": "go on"}], truncation="auto"))

    prompts = [prepare(request, tools, previous=one, seed=1).spec.prompts[0] for one in both]

    assert prompts[0] == prompts[1]
    assert len(prompts[0]) < 300
    text = tools.decode(prompts[0])
    assert text.startswith("<|im_start|>user")
    assert text.count('{"name"') == text.count("<|im_start|>tool")


@pytest.mark.parametrize("seed", range(10))
def test_a_chain_may_begin_at_any_turn_of_an_agent(seed: int) -> None:
    turns = random_chain(random.Random(seed))

    for max_characters in range(200, 3000, 150):
        newest, is_whole = newest_turns(turns[::-1], max_characters=max_characters)
        previous = previous_of(newest, header(JobKind.RESPONSE), answer_of(), is_whole=is_whole)
        messages_of_items(previous.input_items)
