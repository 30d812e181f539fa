"""Checker processes: verdicts, the end of those that a hostile text takes down, and the cache of verdicts."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest

from api.grammars.checker import Checker
from api.grammars.constraint_checks import ConstraintChecks
from api.grammars.verdicts import Verdict, VerdictCache, digest_of
from api.protocol.structured.constraints import Constraint, ConstraintKind, Judged
from storage.errors import InvalidFunctionParameters, InvalidGrammar, InvalidJsonSchema, InvalidRequest


def schema(document: object, *, param: str = "response_format", is_strict: bool = True) -> Constraint:
    """A schema of an answer."""
    return Constraint(
        param=param,
        title=param,
        kind=ConstraintKind.SCHEMA,
        text=json.dumps(document),
        is_strict=is_strict,
        is_tool=param.startswith("tools"),
    )


def lark(text: str) -> Constraint:
    """A grammar."""
    param = "structured_outputs.grammar"
    return Constraint(param=param, title=param, kind=ConstraintKind.LARK, text=text)


def _chain(count: int) -> dict[str, object]:
    links = {f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(count)}
    return {"$ref": "#/$defs/d0", "$defs": {**links, f"d{count}": True}}


def _rules(count: int, rule: str) -> str:
    first, last = rule[0] + "0", f"{rule[0]}{count}"
    return f'start: {first}\n{last}: "x"\n' + "\n".join(rule.format(i, i + 1) for i in range(count))


def _nested_one_of(depth: int) -> dict[str, object]:
    inner: dict[str, object] = {"type": "null"}
    for level in range(depth):
        branches = [{"properties": {"k": {"const": sign * level}, "v": inner}} for sign in (1, -1)]
        inner = {"oneOf": [{"$ref": "#/$defs/x"}, *branches]}
    return {**inner, "$defs": {"x": True}}


# Texts that make a compiler slow, large or crash; most are within the limits of size.
HOSTILE: dict[str, Callable[[], Constraint]] = {
    "4,000 references in a row": lambda: schema(_chain(4000)),
    "9,000 rules in a row": lambda: lark(
        "start: r0\n" + "\n".join(f"r{i}: r{i + 1}" for i in range(9000)) + '\nr9000: "x"'
    ),
    "9,000 terminals in a row": lambda: lark(_rules(9000, "R{}: R{}")),
    "terminals that double": lambda: lark(_rules(40, "R{0}: R{1} R{1}")),
    "nested repeats": lambda: lark("start: /(((a{1,99}){1,99}){1,99}b?){1,99}/"),
    "9,000 objects in an enum": lambda: schema({"enum": [{"a": i, "b": [i]} for i in range(9000)]}),
    "9,000 properties": lambda: schema({"properties": {f"p{i}": {"type": "null"} for i in range(9000)}}),
    "a huge multiple": lambda: schema({"type": "integer", "multipleOf": 9999}),
    "nested oneOf": lambda: schema(_nested_one_of(9), is_strict=False),
    "many alternatives of many": lambda: schema(
        {"allOf": [{"anyOf": [{"required": [f"p{i}"]}, {"required": [f"q{i}"]}]} for i in range(14)]}
    ),
    "many patterns": lambda: schema({"patternProperties": {f"^x{i}.*y.*z{i}$": True for i in range(400)}}),
    "patterns that need a search": lambda: schema({"type": "string", "pattern": "(.*a.{20}){5}", "minLength": 100}),
    "many such patterns": lambda: schema(
        {"anyOf": [{"type": "string", "pattern": f"(.*{i}.{{20}}){{5}}", "minLength": 99} for i in range(200)]},
        is_strict=False,
    ),
    "an ambiguous pattern": lambda: schema({"type": "string", "pattern": "^(a|a)*$"}),
    "a billion items": lambda: schema({"type": "array", "maxItems": 10**9, "minItems": 10**8}),
    "a reference to itself": lambda: schema({"$ref": "#"}),
    "an ambiguous grammar": lambda: lark('start: a\na: a a | "x" |'),
    "10,000 words": lambda: lark("start: " + " | ".join(f'"w{i}"' for i in range(10_000))),
    "parentheses": lambda: lark("start: " + "(" * 60_000 + '"a"' + ")" * 60_000),
    "a million repeats": lambda: lark('start: ("a" | "b" "c"?){1,1000000}'),
    "10 MB of values": lambda: schema({"enum": [f"value {i}" for i in range(700_000)]}),
    "1.2 MB of grammar": lambda: lark("start: " + " | ".join(f'"w{i}"' for i in range(120_000))),
}


@pytest.fixture
async def checks() -> AsyncIterator[ConstraintChecks]:
    """Checks with processes that end with the test."""
    made = ConstraintChecks()
    yield made
    await made.stop()


async def test_constraints_are_judged_by_their_fields(checks: ConstraintChecks) -> None:
    loose = schema({"uniqueItems": True, "contains": {}}, param="tools.0.function.parameters", is_strict=False)

    judged = await checks.judge("p", [schema({"type": "object"}), loose])

    assert list(judged) == ["response_format", "tools.0.function.parameters"]
    assert judged["response_format"].grammar_part["json_schema"]
    assert judged[loose.param].unenforced == ("uniqueItems", "contains")
    assert await checks.judge("p", []) == {}


@pytest.mark.parametrize(
    ("constraint", "error"),
    [
        (schema({"uniqueItems": True}), InvalidJsonSchema),
        (schema({"type": 3}, param="tools.0.parameters"), InvalidFunctionParameters),
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
