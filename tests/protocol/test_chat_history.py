"""Tool calls and results in the messages of a chat: rules, wording of refusals, and the prompt."""

import pytest

from api.protocol.chat.chat_history import messages_of_chat
from api.protocol.chat.request import ChatRequest
from storage.errors import InvalidRequest, MissingToolOutput, PlatformError, UnknownCallId
from tests.protocol.examples import body

Wire = dict[str, object]
USER: Wire = {"role": "user", "content": "Oslo?"}


def called(*ids: str, arguments: object = "{}", **fields: object) -> Wire:
    calls = [{"id": one, "type": "function", "function": {"name": f"f_{one}", "arguments": arguments}} for one in ids]
    return {"role": "assistant", "content": None, "tool_calls": calls, **fields}


def answered(call_id: str, content: object = "rain") -> Wire:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


def refusal_of(*messages: Wire) -> PlatformError:
    with pytest.raises(InvalidRequest) as refusal:
        messages_of_chat(ChatRequest.parse(body(messages=list(messages))).messages)
    return refusal.value


def test_results_follow_their_calls_in_the_order_of_the_calls_with_the_tools_name() -> None:
    request = ChatRequest.parse(
        body(messages=[USER, called("a", "b"), answered("b", "sun"), answered("a", "rain"), USER])
    )

    messages = messages_of_chat(request.messages)

    assert [message.get("tool_call_id") for message in messages] == [None, None, "a", "b", None]
    assert [message.get("name") for message in messages] == [None, None, "f_a", "f_b", None]
    assert [message["content"] for message in messages] == ["Oslo?", "", "rain", "sun", "Oslo?"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("rain", "rain"),
        ("", ""),
        ([{"type": "text", "text": "rain"}], "rain"),
        ([{"type": "text", "text": "rain"}, {"type": "text", "text": "and wind"}], "rain\nand wind"),
    ],
)
def test_all_parts_of_a_result_are_one_text(content: object, text: str) -> None:
    request = ChatRequest.parse(body(messages=[USER, called("a"), answered("a", content)]))

    assert messages_of_chat(request.messages)[2]["content"] == text


@pytest.mark.parametrize("arguments", ["", None, " \n"])
def test_no_arguments_are_an_empty_object(arguments: str | None) -> None:
    request = ChatRequest.parse(body(messages=[USER, called("a", arguments=arguments), answered("a")]))

    calls = messages_of_chat(request.messages)[1]["tool_calls"]

    assert calls == [{"id": "a", "type": "function", "function": {"name": "f_a", "arguments": "{}"}}]


@pytest.mark.parametrize("arguments", ["[1]", '"x"', "5", '{"a": 1', "{'a': 1}", '{"a": NaN}', "[" * 100_000])
def test_arguments_that_are_no_object_are_refused_with_their_path(arguments: str) -> None:
    refusal = refusal_of(USER, called("a", "b", arguments=arguments), answered("a"), answered("b"))

    assert refusal.param == "messages[1].tool_calls[0].function.arguments"
    assert refusal.code == "invalid_request"


def test_calls_without_results_are_refused_also_at_the_end() -> None:
    for messages in ([USER, called("a", "b"), answered("b")], [USER, called("a", "b"), answered("b"), USER]):
        refusal = refusal_of(*messages)

        assert isinstance(refusal, MissingToolOutput)
        assert refusal.message == (
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            "'tool_call_id'. The following tool_call_ids did not have response messages: a"
        )
        assert (refusal.param, refusal.code) == ("messages.[1].role", "missing_tool_output")


@pytest.mark.parametrize(
    ("messages", "index"),
    [
        ([USER, answered("a")], 1),
        ([USER, called("a"), answered("b")], 2),
        ([USER, called("a"), answered("a"), answered("a")], 3),
        ([USER, called("a"), answered("a"), USER, answered("a")], 4),
    ],
)
def test_a_result_of_no_call_is_refused_with_its_id(messages: list[Wire], index: int) -> None:
    refusal = refusal_of(*messages)

    assert isinstance(refusal, UnknownCallId)
    sentence = "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
    assert refusal.message.startswith(sentence)
    assert f"'{messages[index]['tool_call_id']}'" in refusal.message
    assert (refusal.param, refusal.code) == (f"messages.[{index}].role", "unknown_call_id")


def test_an_id_may_come_again_in_a_later_message_and_not_in_the_same() -> None:
    twice = ChatRequest.parse(body(messages=[USER, called("a"), answered("a"), called("a"), answered("a", "sun")]))

    assert [message["content"] for message in messages_of_chat(twice.messages)][2::2] == ["rain", "sun"]
    assert refusal_of(USER, called("a", "a"), answered("a")).param == "messages[1].tool_calls"


def test_a_message_of_many_missing_results_is_short() -> None:
    ids = [f"{index}" * 50 for index in range(100, 200)]

    assert len(refusal_of(USER, called(*ids)).message) < 1000


WRONG: list[tuple[Wire, str]] = [
    ({"role": "assistant", "content": None}, "messages[0].content"),
    ({"role": "assistant", "content": None, "tool_calls": []}, "messages[0].content"),
    ({"role": "user", "content": None}, "messages[0].content"),
    ({"role": "tool", "tool_call_id": "a", "content": None}, "messages[0].content"),
    ({"role": "tool", "content": "x"}, "messages[0].tool_call_id"),
    ({"role": "user", "content": "x", "tool_call_id": "a"}, "messages[0].tool_call_id"),
    ({**called("a"), "role": "user"}, "messages[0].tool_calls"),
    (called("a" * 300), "messages[0].tool_calls[0].id"),
    ({**called(), "tool_calls": [{"id": "a", "type": "web_search"}]}, "messages[0].tool_calls[0]"),
    ({**called(), "tool_calls": [{"id": "a", "type": "function"}]}, "messages[0].tool_calls[0].function"),
    (
        {**called(), "tool_calls": [{"type": "custom", "id": "a", "custom": {"name": "f"}}]},
        "messages[0].tool_calls[0].custom.input",
    ),
    (called("a", arguments={"city": "Oslo"}), "messages[0].tool_calls[0].function.arguments"),
]


@pytest.mark.parametrize(("message", "param"), WRONG, ids=[f"{index}" for index in range(len(WRONG))])
def test_a_wrong_message_is_refused_with_its_field(message: Wire, param: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        ChatRequest.parse(body(messages=[message]))

    assert refusal.value.param == param


def test_calls_as_sdks_send_them_back_are_taken() -> None:
    """With what a stream and a parsed answer leave in them."""
    call = {"index": 0, "id": "a", "type": "function"}
    function = {"name": "f", "arguments": '{"x": 1}', "parsed_arguments": {"x": 1}}
    custom = {"index": 1, "id": "b", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    message = {"role": "assistant", "content": "", "tool_calls": [{**call, "function": function}, custom]}

    request = ChatRequest.parse(body(messages=[USER, message, answered("a"), answered("b")]))

    assert messages_of_chat(request.messages)[1]["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
        {"id": "b", "type": "custom", "custom": {"name": "shell", "input": "ls"}},
    ]
