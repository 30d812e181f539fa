"""The table of job kinds: a fourth kind is its own folder and a line in the table."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, cast

import pytest

from api.protocol import kinds
from api.protocol.answer.outcome import Outcome
from api.protocol.completions.fold import CompletionFold
from api.protocol.jobs.kind_spec import KindSpec
from api.protocol.jobs.prepared import Prepared, Terms, prepared, spec_of
from api.protocol.kinds import KINDS, deleted_object, fold_of, object_of, prepare, receipt_of, skip_of
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.shared.job_request import JobRequest
from storage.contract import JobHeader, JobKind
from storage.ids import new_job_id
from storage.webhooks.event_types import event_types_of
from tests.protocol.examples import body, end, event, payloads, tokens, tools

ROOT = Path(__file__).parents[2]
TOY = JobKind("toy")


class ToyRequest(JobRequest):
    """The body of `POST /v1/toys`."""

    kind: ClassVar = TOY
    wish: str


def prepare_toy(request: ToyRequest, tools: PromptTools, terms: Terms) -> Prepared:
    prompt = tools.encode_prompt(request.wish)
    spec = spec_of(request, tools, terms, (prompt,), max_tokens=4)
    return prepared(request, TOY, terms, spec, context={}, store_default=True)


def toy_object(header: JobHeader, outcome: Outcome, _metadata: dict[str, str] | None) -> dict[str, object]:
    return {"id": header.job_id, "object": "toy", "text": outcome.choices[0].text}


@pytest.fixture
def toy() -> Iterator[KindSpec]:
    """A fourth kind, registered as a line of the table would do it."""
    spec = KindSpec(
        kind=TOY,
        path="/v1/toys/",
        deleted_object="toy.deleted",
        request=ToyRequest,
        prepare=prepare_toy,
        fold=CompletionFold,
        num_choices=lambda _header: 1,
        parser=lambda _header: None,
        make_object=toy_object,
        make_receipt=lambda header, _outcome: {"id": header.job_id},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast(dict[JobKind, KindSpec], kinds.KINDS), TOY, spec)
        yield spec


def test_a_fourth_kind_is_prepared_folded_and_shown(toy: KindSpec) -> None:
    request = ToyRequest.parse(body(wish="a ball"))
    made = prepare(request, tools(), seed=1)
    job = JobHeader(
        job_id=new_job_id(made.kind),
        kind=JobKind("toy"),
        model=made.model,
        created_at=1,
        request=made.request,
        context=made.context,
    )
    log = [tokens(1, event("red")), end(2)]

    fold = fold_of(job)
    chunks = payloads([*fold.open(), *(frame for entry in log for frame in fold.feed(entry))])

    assert made.store
    assert made.spec.sampling.max_tokens == 4
    assert job.job_id.startswith("toy_")
    assert object_of(job, log) == {"id": job.job_id, "object": "toy", "text": "red"}
    assert len(chunks) == 2
    assert receipt_of(job, []) == {"id": job.job_id}
    assert deleted_object(TOY, "toy_1") == {"id": "toy_1", "object": "toy.deleted", "deleted": True}
    assert skip_of(TOY, 3) == 3
    assert event_types_of(TOY)[0] == "toy.completed"


def test_every_named_kind_is_in_the_table() -> None:
    assert set(KINDS) == set(JobKind)
    assert all(spec.kind == kind and spec.request.kind == kind for kind, spec in KINDS.items())


def test_kinds_are_named_in_their_own_folders_and_routes_only() -> None:
    """A file that names a kind would have to be touched for a fourth one."""
    wires = ("responses", "chat", "completions", "embeddings", "rerank")
    allowed = (*(f"api/protocol/{wire}/" for wire in wires), "api/routes/")
    naming = {
        str(path.relative_to(ROOT))
        for room in ("api", "storage", "workers")
        for path in (ROOT / room).rglob("*.py")
        if _names_a_kind(path)
    }

    # `previous_response_id` names responses wherever it is looked up.
    assert {name for name in naming if not name.startswith(allowed)} <= {"api/jobs/job_views.py"}


def _names_a_kind(path: Path) -> bool:
    return any(
        isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "JobKind"
        for node in ast.walk(ast.parse(path.read_text()))
    )
