"""Stored conversations: the end of a chain that a truncated prompt needs."""

import random

import pytest

from api.protocol.kinds import prepare
from api.protocol.prompt.token_budget import CHARACTERS_PER_TOKEN
from api.protocol.responses.request import ResponseRequest
from api.protocol.responses.stored_items import PreviousResponse, StoredTurn, context_of, newest_turns, previous_of
from storage.contract import JobKind
from tests.protocol.examples import body, header, tools

CONTEXT_LENGTH = 120


def _request(messages: list[dict[str, str]]) -> ResponseRequest:
    return ResponseRequest.parse(body(input=messages, truncation="auto"))


def _answer(text: str) -> dict[str, object]:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return {"output": [{"type": "message", "role": "assistant", "status": "completed", "content": content}]}


def _chain(inputs: list[list[dict[str, str]]]) -> list[StoredTurn]:
    """Turns of these inputs, the oldest first; each but the last was answered."""
    turns: list[StoredTurn] = []
    previous: PreviousResponse | None = None
    for number, messages in enumerate(inputs):
        turns.append(StoredTurn(job_id=f"resp_{number}", context=context_of(previous, _request(messages).input)))
        previous = _previous(turns, f"answer {number}")
    return turns


def _previous(turns: list[StoredTurn], text: str, *, is_whole: bool = True) -> PreviousResponse:
    return previous_of(turns, header(JobKind.RESPONSE), _answer(text), is_whole=is_whole)


def _random_inputs(generator: random.Random) -> list[list[dict[str, str]]]:
    """Turns with questions of some length, a few with instructions and a few with answers of another model."""
    inputs = []
    for number in range(60):
        messages = [{"role": "user", "content": f"{number:02}" + "x" * generator.randrange(30)}]
        if generator.random() < 0.05:
            messages.insert(0, {"role": generator.choice(["system", "developer"]), "content": f"s{number}"})
        if generator.random() < 0.3:
            messages.insert(generator.randrange(len(messages) + 1), {"role": "assistant", "content": f"a{number}"})
        inputs.append(messages)
    return inputs


@pytest.mark.parametrize("seed", range(20))
def test_a_prompt_is_the_same_from_the_whole_chain_and_from_its_end(seed: int) -> None:
    turns = _chain(_random_inputs(random.Random(seed)))
    newest, is_whole = newest_turns(turns[::-1], max_characters=CHARACTERS_PER_TOKEN * CONTEXT_LENGTH)
    assert not is_whole
    assert turns[-len(newest) :] == newest

    whole, end = _previous(turns, "last"), _previous(newest, "last", is_whole=False)
    prompts = [
        prepare(
            _request([{"role": "user", "content": "go on"}]), tools(context_length=CONTEXT_LENGTH), previous=one, seed=1
        ).spec.prompts
        for one in (whole, end)
    ]

    assert prompts[0] == prompts[1]
    assert [item["content"] for item in whole.system_items] == [item["content"] for item in end.system_items]


def test_an_end_holds_no_more_turns_than_characters_and_messages_allow() -> None:
    turns = _chain([[{"role": "user", "content": ""}]] * 50)

    newest, is_whole = newest_turns(turns[::-1], max_characters=CHARACTERS_PER_TOKEN * 10)

    # Each turn has an answer of eight or nine characters and a question of none.
    assert (len(newest), is_whole) == (4, False)


def test_a_turn_of_an_old_version_is_continued_from_its_whole_chain() -> None:
    turns = _chain([[{"role": "system", "content": "brief"}, {"role": "user", "content": "x" * 500}]] * 5)
    turns[-1].context.pop("system_items")

    newest, is_whole = newest_turns(turns[::-1], max_characters=100)

    assert is_whole
    assert newest == turns
    assert len(_previous(newest, "last").system_items) == 5


def test_a_turn_after_one_of_an_old_version_is_not() -> None:
    turns = _chain([[{"role": "system", "content": "brief"}, {"role": "user", "content": "x" * 500}]] * 5)
    for turn in turns[:-1]:
        turn.context.pop("system_items", None)

    newest, is_whole = newest_turns(turns[::-1], max_characters=100)

    assert (len(newest), is_whole) == (1, False)
    assert [item["role"] for item in _previous(newest, "last", is_whole=False).input_items] == ["system"] * 5 + ["user"]
