"""Schemas that the openai SDK makes of pydantic classes: enforced whole, and what is written under them is valid."""

import random
from datetime import date, datetime, time, timedelta
from enum import Enum, IntEnum
from ipaddress import IPv4Address
from typing import Annotated, Any, Literal, Self
from uuid import UUID

import pytest
from openai.lib._pydantic import to_strict_json_schema
from pydantic import AnyUrl, BaseModel, Field, RootModel

from api.protocol.structured.constraints import ConstraintRefused
from api.protocol.structured.judging import judge_schema
from tests.protocol.structured.texts import matcher_for, random_text

_NUM_TEXTS = 15


class Plain(BaseModel):
    text: str
    whole: int
    real: float
    flag: bool
    nothing: None


class Bounded(BaseModel):
    text: Annotated[str, Field(min_length=2, max_length=9, pattern="^[a-z]+$")]
    whole: Annotated[int, Field(ge=-3, lt=17)]
    real: Annotated[float, Field(gt=0, le=2.5)]
    half: Annotated[float, Field(multiple_of=0.5, ge=0, le=9)]
    many: Annotated[list[int], Field(min_length=1, max_length=3)]


class Colour(Enum):
    RED = "red"
    SEA = "sea green"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Choices(BaseModel):
    colour: Colour
    level: Level
    word: Literal["a", 3, None, True]


class Formats(BaseModel):
    day: date
    moment: datetime
    clock: time
    span: timedelta
    key: UUID
    address: IPv4Address
    link: AnyUrl


class Nested(BaseModel):
    """With a description."""

    inner: Bounded = Field(description="an inner one")
    others: list[Choices]
    pair: tuple[int, str]
    maybe: Choices | None = None


class Tree(BaseModel):
    value: int
    children: list[Self]


class Link(BaseModel):
    target: "Link | None"
    twin: "Knot | None"


class Knot(BaseModel):
    back: Link | None


class Circle(BaseModel):
    kind: Literal["circle"]
    radius: Annotated[float, Field(ge=0, le=9)]


class Square(BaseModel):
    kind: Literal["square", "rectangle"]
    side: int


class Tagged(BaseModel):
    shape: Annotated[Circle | Square, Field(discriminator="kind")]
    either: Circle | Square | str | None


class Listed(RootModel[list[Annotated[int, Field(ge=0, le=9)]]]):
    """A root that is no object."""


class Unique(BaseModel):
    tags: set[str]


KINDS: list[type[BaseModel]] = [Plain, Bounded, Choices, Formats, Nested, Tree, Link, Knot, Tagged]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_for_a_class_is_valid_for_it(kind: type[BaseModel]) -> None:
    matcher = matcher_for(judge_schema(to_strict_json_schema(kind), is_strict=True))

    texts = [random_text(matcher, random.Random(seed), num_bytes=1500) for seed in range(_NUM_TEXTS)]

    whole = [text for text in texts if text is not None]
    for text in whole:
        kind.model_validate_json(text)
    assert len(whole) > _NUM_TEXTS / 3


@pytest.mark.parametrize("kind", [*KINDS, Listed])
def test_the_schema_that_pydantic_itself_makes_is_enforced_too(kind: type[BaseModel]) -> None:
    matcher = matcher_for(judge_schema(kind.model_json_schema(), is_strict=True))

    for seed in range(_NUM_TEXTS):
        text = random_text(matcher, random.Random(seed), num_bytes=1500)
        if text is not None:
            kind.model_validate_json(text)


def test_a_class_that_cannot_be_enforced_is_refused_by_keyword() -> None:
    schema: dict[str, Any] = to_strict_json_schema(Unique)

    with pytest.raises(ConstraintRefused, match="'uniqueItems'"):
        judge_schema(schema, is_strict=True)
    assert judge_schema(schema, is_strict=False).unenforced == ("uniqueItems",)
