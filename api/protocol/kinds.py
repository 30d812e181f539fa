"""The table of job kinds, and what callers do with it: prepare a job, fold its log, make its object.

A new kind is a folder with a `kind.py`, a line in this table and, for its name, a line in `storage.contract.JobKind`.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from api.protocol.answer.fold import Fold
from api.protocol.answer.outcome import Outcome, outcome_of
from api.protocol.chat.kind import CHAT
from api.protocol.completions.kind import COMPLETION
from api.protocol.embeddings.kind import EMBEDDING
from api.protocol.jobs.kind_spec import KindSpec
from api.protocol.jobs.prepared import Prepared, Terms
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.rerank.kind import RERANK, SCORE
from api.protocol.responses.kind import RESPONSE
from api.protocol.shared.job_request import CreateJobRequest
from api.protocol.structured.constraints import Judged
from storage.contract import End, JobHeader, JobKind, LogEntry, Result

KINDS: Mapping[JobKind, KindSpec] = {spec.kind: spec for spec in (RESPONSE, CHAT, COMPLETION, EMBEDDING, RERANK, SCORE)}
# By the path of their create calls, which lines of batches name.
ENDPOINTS: Mapping[str, KindSpec] = {spec.path.removesuffix("/"): spec for spec in KINDS.values()}


def prepare(
    request: CreateJobRequest,
    tools: PromptTools,
    *,
    previous: object = None,
    seed: int,
    store_default: bool | None = None,
    is_background: bool = False,
    judged: Mapping[str, Judged] = MappingProxyType({}),
    thought_key: str | None = None,
) -> Prepared:
    """The job to store and run for `request`; the arguments are those of `Terms`.

    Raises ModelCapabilityMissing, ContextLengthExceeded and InvalidRequest.
    """
    spec = KINDS[request.kind]
    tools.require(spec.capability)
    terms = Terms(
        seed=seed,
        previous=previous,
        store_default=store_default,
        is_background=is_background,
        judged=judged,
        thought_key=thought_key,
    )
    return spec.prepare(request, tools, terms)


def fold_of(header: JobHeader) -> Fold:
    """A fresh fold for a job of a kind that has streams."""
    fold = KINDS[header.kind].fold
    assert fold is not None, f"{header.kind} has no stream"
    return fold(header)


def skip_of(kind: JobKind, starting_after: int | None) -> int:
    """Number of frames to skip in a resumed stream; None is a stream from the start."""
    if starting_after is None:
        return 0
    return starting_after + 1 if KINDS[kind].counts_from_zero else starting_after


def object_of(
    header: JobHeader,
    entries: Iterable[LogEntry] | Result,
    end: End | None = None,
    *,
    metadata: dict[str, str] | None = None,
) -> dict[str, object]:
    """The protocol object of a job, complete or so far; the end may also be among the entries.

    metadata: the current metadata; None when it was never changed
    """
    return KINDS[header.kind].make_object(header, _outcome(header, entries, end), metadata)


def receipt_of(header: JobHeader, entries: Iterable[LogEntry] | Result, end: End | None = None) -> dict[str, object]:
    """The body of a 202 answer for a job."""
    return KINDS[header.kind].make_receipt(header, _outcome(header, entries, end))


def deleted_object(kind: JobKind, job_id: str) -> dict[str, object]:
    """The answer to a DELETE."""
    return {"id": job_id, "object": KINDS[kind].deleted_object, "deleted": True}


def _outcome(header: JobHeader, entries: Iterable[LogEntry] | Result, end: End | None) -> Outcome:
    spec = KINDS[header.kind]
    return outcome_of(entries, end, spec.num_choices(header), spec.parser(header))
