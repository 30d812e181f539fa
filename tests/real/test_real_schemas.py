"""Real JSON schemas: how many are enforced whole, and that nothing invalid fits one of them."""

import json
import random
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import TypeVar

import pytest
from jsonschema import Draft202012Validator

from api.protocol.structured.constraints import ConstraintRefused, Judged
from api.protocol.structured.judging import judge_schema
from tests.protocol.structured.texts import fits, matcher_for, random_text
from tests.real.packages import PackageUnavailable
from tests.real.schemas import Case, changed, github_requests, suite_cases
from tests.services import skip_or_fail

T = TypeVar("T")
# Changed instances that are tried of each schema.
_NUM_CHANGED = 60


def loaded(load: Callable[[], T]) -> T:
    """What a set holds; the test is skipped where its package cannot be had."""
    try:
        return load()
    except PackageUnavailable as error:
        skip_or_fail(str(error))
        raise


def judged_or_none(schema: object, *, is_strict: bool) -> Judged | None:
    """The judgment of a schema, None for a refusal."""
    try:
        return judge_schema(schema, is_strict=is_strict)
    except ConstraintRefused:
        return None


def wrongly_accepted(case: Case, judged: Judged, counts: Counter[str]) -> list[str]:
    """Instances that fit the grammar and not the schema."""
    matcher = matcher_for(judged)
    found = []
    for value, is_valid in case.instances:
        is_accepted = fits(matcher, json.dumps(value, ensure_ascii=False))
        counts["valid" if is_valid else "invalid"] += 1
        counts["valid and accepted"] += is_valid and is_accepted
        if is_accepted and not is_valid:
            found.append(f"{case.name}: {json.dumps(value)[:100]}")
    return found


@pytest.mark.parametrize("has_formats", [False, True], ids=["keywords", "formats"])
def test_nothing_invalid_fits_a_schema_of_the_suite_that_is_enforced_whole(has_formats: bool) -> None:
    cases = loaded(lambda: list(suite_cases(has_formats=has_formats)))
    counts: Counter[str] = Counter()
    wrong: list[str] = []

    for case in cases:
        for is_strict in (True, False):
            judged = judged_or_none(case.schema, is_strict=is_strict)
            counts["strict" if is_strict else "not strict"] += judged is not None
            if judged is not None and not judged.unenforced:
                wrong += wrongly_accepted(case, judged, counts)

    assert wrong == []
    assert len(cases) >= (70 if has_formats else 1200)
    # All but those that nothing fits and those that are wrong.
    assert counts["not strict"] >= 0.93 * len(cases)


def test_schemas_of_an_api_are_enforced_and_nothing_invalid_fits_them() -> None:
    operations = loaded(lambda: list(github_requests()))
    counts: Counter[str] = Counter()
    wrong: list[str] = []

    for name, schema, examples in operations:
        judged = judged_or_none(schema, is_strict=True)
        if judged is None:
            continue
        counts["enforced"] += 1
        validator = Draft202012Validator(schema)
        text = random_text(matcher_for(judged), random.Random(name), num_bytes=1500)
        written = [] if text is None else [json.loads(text)]
        counts["written and valid"] += sum(map(validator.is_valid, written))
        counts["written"] += len(written)
        some = islice((other for value in [*examples, *written] for other in changed(value)), _NUM_CHANGED)
        instances = tuple((value, validator.is_valid(value)) for value in [*examples, *some])
        wrong += wrongly_accepted(Case(name=name, schema=schema, instances=instances), judged, counts)

    assert wrong == []
    assert counts["written"] == counts["written and valid"] > 100
    assert counts["enforced"] >= 0.93 * len(operations) > 300
    assert counts["invalid"] > 3000
