"""Answers held to pydantic classes and grammars: the unmodified SDK, and the bundled model at a high temperature."""

import json
import re
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field
from tokenizers import Tokenizer

from tests.waiting import wait_until

_ASK: Any = [{"role": "user", "content": "Hello"}]
_Short = Annotated[str, Field(max_length=8)]


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Address(BaseModel):
    street: _Short
    number: Annotated[int, Field(ge=1, le=999)]


class Person(BaseModel):
    """Nested, optional, an enum, a list."""

    name: _Short
    colour: Colour
    address: Address | None
    nicknames: Annotated[list[_Short], Field(max_length=2)]


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: Annotated[int, Field(ge=1, le=9)]


class Dog(BaseModel):
    kind: Literal["dog"]
    barks: bool


class Pet(BaseModel):
    """A union."""

    pet: Cat | Dog


class Tree(BaseModel):
    """A class that holds its own kind."""

    value: Annotated[int, Field(ge=0, le=9)]
    child: Self | None


# Tokens of the bundled model that begin with white space.
_TOKENIZER = Tokenizer.from_file(str(Path(__file__).parents[2] / "workers" / "model" / "demo" / "tokenizer.json"))
_BLANKS = [
    token_id
    for token_id in range(_TOKENIZER.get_vocab_size())
    if not (_TOKENIZER.decode([token_id], skip_special_tokens=False) or "x")[0].strip()
]
CLASSES: list[type[BaseModel]] = [Person, Pet, Tree]


def parsed_chat(client: OpenAI, kind: type[BaseModel], seed: int) -> BaseModel | None:
    """What `chat.completions.parse` makes of an answer; None where the limit cut it."""
    try:
        answer = client.chat.completions.parse(
            model="demo",
            messages=_ASK,
            response_format=kind,
            temperature=1.5,
            seed=seed,
            max_tokens=200,
        )
    except openai.LengthFinishReasonError:
        return None
    assert answer.choices[0].finish_reason == "stop"
    return answer.choices[0].message.parsed


def streamed_chat(client: OpenAI, kind: type[BaseModel], seed: int) -> BaseModel | None:
    """The same of a stream."""
    try:
        with client.chat.completions.stream(
            model="demo",
            messages=_ASK,
            response_format=kind,
            temperature=1.5,
            seed=seed,
            max_tokens=200,
        ) as stream:
            return stream.get_final_completion().choices[0].message.parsed
    except openai.LengthFinishReasonError:
        return None


def parsed_response(client: OpenAI, kind: type[BaseModel], seed: int) -> BaseModel | None:
    """What `responses.parse` makes of an answer."""
    body = {"seed": seed}
    try:
        answer = client.responses.parse(
            model="demo", input="Hello", text_format=kind, temperature=1.5, max_output_tokens=200, extra_body=body
        )
    except ValueError:
        return None  # pydantic's own error for a text that was cut
    assert answer.status == "completed"
    return answer.output_parsed


WAYS: list[Callable[[OpenAI, type[BaseModel], int], BaseModel | None]] = [parsed_chat, streamed_chat, parsed_response]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", CLASSES)
def test_the_sdk_parses_classes(
    kind: type[BaseModel], way: Callable[[OpenAI, type[BaseModel], int], BaseModel | None], client: OpenAI
) -> None:
    answers = [way(client, kind, seed) for seed in range(6)]

    whole = [answer for answer in answers if answer is not None]
    assert all(type(answer) is kind for answer in whole)
    assert len(whole) >= 3


def test_a_stream_and_the_stored_answer_of_a_format_are_the_same(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 0, "maximum": 99}},
        "required": ["n"],
        "additionalProperties": False,
    }
    text: Any = {"format": {"type": "json_schema", "name": "n", "schema": schema}}

    with client.responses.stream(model="demo", input="Hello", text=text, temperature=1) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()

    assert json.loads(deltas).keys() == {"n"}
    assert client.responses.retrieve(final.id).output_text == final.output_text == deltas


@pytest.mark.parametrize(
    ("extra", "wanted"),
    [
        ({"structured_outputs": {"regex": "[a-f]{3}-[0-9]{2}"}}, "[a-f]{3}-[0-9]{2}"),
        ({"guided_choice": ["yes", "no"]}, "yes|no"),
        ({"structured_outputs": {"grammar": 'start: "a" ("b" | "c")~3'}}, "a[bc]{3}"),
        ({"guided_grammar": 'root ::= "<" [0-9] ">"'}, "<[0-9]>"),
        ({"guided_json": {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 3}}, r"\[([12](, ?)?)*\]"),
    ],
)
def test_each_choice_of_each_protocol_fits_what_was_asked(
    extra: dict[str, object], wanted: str, client: OpenAI
) -> None:
    fields: dict[str, Any] = {"model": "demo", "max_tokens": 60, "n": 3, "temperature": 2, "extra_body": extra}
    texts = [choice.text for choice in client.completions.create(prompt="Once", **fields).choices]
    texts += [choice.message.content for choice in client.chat.completions.create(messages=_ASK, **fields).choices]

    assert len(texts) == 6
    assert [text for text in texts if re.fullmatch(wanted, text or "") is None] == []


def test_blanks_that_the_model_prefers_do_not_go_on_for_ever(client: OpenAI) -> None:
    schema = {"type": "array", "maxItems": 2, "items": {"enum": [1]}}
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "p", "schema": schema}}
    blanks = {str(token_id): 100 for token_id in _BLANKS}
    answer = client.chat.completions.create(
        model="demo",
        messages=_ASK,
        response_format=wanted,
        logit_bias=dict(list(blanks.items())[:1000]),
        max_tokens=50,
    )

    assert answer.choices[0].finish_reason == "stop"
    assert json.loads(answer.choices[0].message.content or "") in ([], [1], [1, 1])


@pytest.mark.parametrize("limit", [1, 2, 5, 9])
def test_a_cut_answer_says_so(limit: int, client: OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "p", "schema": {"type": "string", "minLength": 40}}}

    chat = client.chat.completions.create(model="demo", messages=_ASK, response_format=wanted, max_tokens=limit)
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="demo", messages=_ASK, response_format=Person, max_tokens=limit)

    assert chat.choices[0].finish_reason == "length"


def test_a_background_job_keeps_its_format(client: OpenAI) -> None:
    wanted: Any = {"format": {"type": "json_object"}}
    made = client.responses.create(
        model="demo", input="Hello", text=wanted, background=True, max_output_tokens=60, temperature=1.5
    )

    wait_until(lambda: client.responses.retrieve(made.id).status in ("completed", "incomplete"))

    assert client.responses.retrieve(made.id).output_text.startswith("{")
