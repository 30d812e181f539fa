"""Checker processes: verdicts, the end of those that a hostile text takes down, and the cache of verdicts."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from api.protocol.checking.checker import Checker
from api.protocol.checking.constraint_checks import ConstraintChecks
from api.protocol.checking.verdicts import Verdict, VerdictCache, digest_of
from api.protocol.structured.constraints import Constraint, Judged
from storage.errors import InvalidFunctionParameters, InvalidGrammar, InvalidJsonSchema, InvalidRequest, Overloaded
from tests.api.hostile_constraints import HOSTILE, lark, schema


@pytest.fixture
async def checks() -> AsyncIterator[ConstraintChecks]:
    """Checks with processes that end with the test."""
    made = ConstraintChecks()
    yield made
    await made.stop()


async def test_constraints_are_judged_by_their_fields(checks: ConstraintChecks) -> None:
    loose = schema({"uniqueItems": True, "contains": {}}, param="tools[0].function.parameters", is_strict=False)

    judged = await checks.judge("p", [schema({"type": "object"}), loose])

    assert list(judged) == ["response_format", "tools[0].function.parameters"]
    assert judged["response_format"].grammar_part["json_schema"]
    assert judged[loose.param].unenforced == ("uniqueItems", "contains")
    assert await checks.judge("p", []) == {}


@pytest.mark.parametrize(
    ("constraint", "error"),
    [
        (schema({"uniqueItems": True}), InvalidJsonSchema),
        (schema({"type": 3}, param="tools[0].parameters"), InvalidFunctionParameters),
        (lark("start: b"), InvalidGrammar),
    ],
)
async def test_the_first_refusal_is_raised_with_its_field(
    checks: ConstraintChecks, constraint: Constraint, error: type[InvalidRequest]
) -> None:
    for _ in range(2):
        with pytest.raises(error) as refused:
            await checks.judge("p", [schema({}, param="first"), constraint, schema({"type": 1}, param="last")])
        assert refused.value.param == constraint.param


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_text_costs_little_and_ends_nobody_else(checks: ConstraintChecks, name: str) -> None:
    constraint = HOSTILE[name]()
    await checks.judge("p", [schema({"const": "warm"})])
    pauses: list[float] = []

    async def watch() -> None:
        while True:
            pauses.append(time.perf_counter())
            await asyncio.sleep(0.005)

    watching = asyncio.create_task(watch())
    cpu_s = time.process_time()
    try:
        await checks.judge("p", [constraint])
    except InvalidRequest:
        pass
    watching.cancel()

    assert time.process_time() - cpu_s < 0.3, "in this process"
    assert max((after - before for before, after in pairwise(pauses)), default=0) < 0.3
    assert await checks.judge("p", [schema({"const": "after"})])


async def test_a_process_that_used_up_its_time_is_a_refusal_and_remembered(checks: ConstraintChecks) -> None:
    constraint = HOSTILE["9,000 objects in an enum"]()

    for _ in range(2):
        began = time.perf_counter()
        with pytest.raises(InvalidJsonSchema, match="takes too long to compile"):
            await checks.judge("p", [constraint])

    assert time.perf_counter() - began < 0.2


async def test_a_crash_is_a_refusal(checks: ConstraintChecks) -> None:
    with pytest.raises(InvalidJsonSchema, match="nested too deeply"):
        await checks.judge("p", [HOSTILE["4,000 references in a row"]()])


async def test_a_question_that_nobody_waits_for_keeps_its_answer(checks: ConstraintChecks) -> None:
    asking = [asyncio.create_task(checks.judge("p", [schema({"const": number})])) for number in range(6)]
    await asyncio.sleep(0)
    for task in asking[::2]:
        task.cancel()

    answers = await asyncio.gather(*asking, return_exceptions=True)

    parts = [json.dumps(one["response_format"].grammar_part) for one in answers if isinstance(one, dict)]
    assert [f'"const": {number}}}' in part for number, part in zip((1, 3, 5), parts, strict=True)] == [True] * 3


async def test_a_project_with_hostile_texts_delays_no_other_and_has_few_questions(checks: ConstraintChecks) -> None:
    await asyncio.gather(*[checks.judge(project, [schema({})]) for project in ("p", "q")])
    hostile = [HOSTILE["9,000 objects in an enum"]()] + [schema({"const": number}) for number in range(20)]
    asking = [asyncio.create_task(checks.judge("p", [one])) for one in hostile]
    await asyncio.sleep(0)

    judged = await checks.judge("q", [schema({"const": "other"})])

    assert judged
    assert not asking[0].done()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(answers[0], InvalidJsonSchema)
    assert [isinstance(answer, dict) for answer in answers] == [False] + [True] * 15 + [False] * 5
    assert all(isinstance(answer, Overloaded) for answer in answers[16:])
    assert await checks.judge("p", [schema({"const": "later"})])


async def test_a_killed_process_is_started_again() -> None:
    checker = Checker()
    assert (await checker.ask([schema({})]))[0].judged is not None
    assert checker._process is not None
    os.kill(checker._process.pid, signal.SIGKILL)

    assert (await checker.ask([schema({})]))[0].reason is not None
    assert (await checker.ask([schema({})]))[0].judged is not None
    await checker.stop()
    await checker.stop()


def test_the_cache_is_limited_in_bytes_and_drops_the_least_recently_used() -> None:
    cache = VerdictCache(max_bytes=3000)
    one, two, three = (digest_of("p", schema({"const": number})) for number in range(3))
    verdict = Verdict(judged=Judged(part="x" * 700))

    for digest in (one, two):
        cache.add(digest, verdict)
    cache.find(one)
    cache.add(three, verdict)
    cache.add(three, verdict)

    assert (cache.find(one), cache.find(two), cache.find(three)) == (verdict, None, verdict)
    assert cache.size_bytes <= 3000


def test_a_verdict_is_of_its_project_strictness_kind_and_text() -> None:
    first = schema({})
    others = [schema({"a": 1}), schema({}, is_strict=False), lark("{}")]

    digests = {digest_of("p", one) for one in (first, *others)} | {digest_of("q", first)}

    assert len(digests) == 5
