"""Judgment of schemas and grammars in the API: real schemas, and hostile texts beside an event loop.

python -m bench.constraints          # fetches what `make real-models` fetches
"""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise

import msgspec

from api.protocol.checking.checker import Checker
from api.protocol.checking.constraint_checks import ConstraintChecks
from api.protocol.structured.constraints import MAX_SCHEMA_BYTES, Constraint, ConstraintKind, ConstraintRefused
from api.protocol.structured.judging import judge_schema
from storage.errors import InvalidRequest
from tests.api.hostile_constraints import HOSTILE
from tests.real.schemas import github_requests

_NUM_QUESTIONS = 300
_TICK_S = 0.002


def main() -> None:
    """Print all tables."""
    schemas = [schema for _, schema, _ in github_requests()]
    _compile(schemas)
    asyncio.run(_ask(schemas))
    asyncio.run(_beside_hostile_texts())


def _compile(schemas: Sequence[dict[str, object]]) -> None:
    """Milliseconds of a judgment in process: reading, compiling and the first mask."""
    seconds, num_enforced = [], 0
    for schema in schemas:
        began = time.thread_time()
        try:
            judge_schema(schema, is_strict=True)
            num_enforced += 1
        except ConstraintRefused:
            pass
        seconds.append(time.thread_time() - began)
    share = num_enforced / len(schemas)
    print(f"{len(schemas)} request schemas of api.github.com, {share:.1%} enforced whole; CPU ms: {_shown(seconds)}")


async def _ask(schemas: Sequence[dict[str, object]]) -> None:
    """Milliseconds from the request to the verdict, with and without the cache."""
    checks = ConstraintChecks()
    constraints = [
        Constraint(param="p", title="p", kind=ConstraintKind.SCHEMA, text=msgspec.json.encode(schema).decode())
        for schema in schemas[:_NUM_QUESTIONS]
    ]
    for name in ("start of the processes", "new", "in the cache"):
        seconds = []
        for constraint in constraints[:1] if name.startswith("start") else constraints:
            began = time.perf_counter()
            try:
                await checks.judge("start" if name.startswith("start") else "p", [constraint])
            except InvalidRequest:
                pass
            seconds.append(time.perf_counter() - began)
        print(f"question, {name}; ms: {_shown(seconds)}")
    await checks.stop()


async def _beside_hostile_texts() -> None:
    """How long a hostile text takes, and how long the event loop stands still while one comes each second."""
    checker, pauses = Checker(), list[float]()

    async def tick() -> None:
        while True:
            pauses.append(time.perf_counter())
            await asyncio.sleep(_TICK_S)

    made = {name: make() for name, make in HOSTILE.items()}
    await checker.ask([made["a reference to itself"]])
    ticking = asyncio.create_task(tick())
    for name, constraint in made.items():
        if len(constraint.text) > MAX_SCHEMA_BYTES:
            continue  # refused by its size
        began = time.perf_counter()
        verdict = (await checker.ask([constraint]))[-1]
        took_s = time.perf_counter() - began
        outcome = "accepted" if verdict.judged is not None else f"refused: {verdict.reason}"
        print(f"{took_s * 1000:7.0f} ms {len(constraint.text):10,} bytes  {name}: {outcome[:90]}")
        await asyncio.sleep(max(0.0, 1 - took_s))
    ticking.cancel()
    await checker.stop()
    longest = max(after - before for before, after in pairwise(pauses)) - _TICK_S
    print(f"longest pause of the event loop: {longest * 1000:.0f} ms")


def _shown(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p50, p99 = (ordered[int((len(ordered) - 1) * share)] * 1000 for share in (0.5, 0.99))
    return f"p50 {p50:.2f}, p99 {p99:.2f}, max {ordered[-1] * 1000:.2f}"


if __name__ == "__main__":
    main()
