"""A prepared job: what is stored and run for a request, and the parts of preparing that all kinds share."""

from collections.abc import Mapping, Sequence

import msgspec

from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.shared.job_request import CreateJobRequest, JobRequest
from api.protocol.shared.sampling_fields import sampling_of
from api.protocol.shared.tiers import priority_of
from api.protocol.structured.constraints import Judged, unenforced_of
from storage.contract import JobKind, JobSpec, OutputFormat
from storage.embedding_job import AnySpec
from storage.errors import InvalidRequest


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request ready to be stored as a job.

    request:  the body as sent, without nulls and the job's webhook target; JSON values
    context:  further input of the folds, JSON values; each kind's `prepare` documents its own. `parser` names the
              segment parser of the output, absent for plain text.
    metadata: the caller's metadata
    unenforced: keywords of its schemas that are not enforced
    store:    as sent, else the protocol's default
    """

    kind: JobKind
    model: str
    spec: AnySpec
    request: dict[str, object]
    context: dict[str, object]
    metadata: dict[str, str]
    store: bool
    background: bool
    stream: bool
    unenforced: tuple[str, ...] = ()


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """Input of preparing besides the request and the model.

    seed:          a random seed, used when the request has none
    previous:      the turn that the request continues, as its kind stores it; None for the first turn
    store_default: the endpoint's default of `store`; None is the protocol's default. A job with a webhook target is
                   stored by default, because the receiver fetches it later.
    is_background: whether no caller waits for the job
    judged:        the judgments of the request's schemas and grammars, by `param`
    """

    seed: int
    previous: object = None
    store_default: bool | None = None
    is_background: bool = False
    judged: Mapping[str, Judged] = {}
    thought_key: str | None = None


def prepared(
    request: CreateJobRequest,
    kind: JobKind,
    terms: Terms,
    spec: AnySpec,
    *,
    context: dict[str, object],
    store_default: bool,
    background: bool = False,
    unenforced: Sequence[str] = (),
) -> Prepared:
    """The prepared job of a request, from its spec and context.

    store_default: the protocol's default of `store`
    unenforced:    keywords of tools that calls of the model are not held to
    """
    has_webhook = request.webhook is not None
    asked = (request.store, True if has_webhook else terms.store_default, store_default)
    return Prepared(
        kind=kind,
        model=request.model,
        spec=spec,
        request=_stored_body(request),
        context=context,
        metadata=request.metadata or {},
        store=next(value for value in asked if value is not None),
        background=background,
        stream=request.stream or False,
        unenforced=tuple(dict.fromkeys((*unenforced_of(terms.judged), *unenforced))) if terms.judged else (),
    )


def spec_of(
    request: JobRequest,
    tools: PromptTools,
    terms: Terms,
    prompts: tuple[tuple[int, ...], ...],
    *,
    max_tokens: int,
    num_choices: int = 1,
    output: OutputFormat | None = None,
) -> JobSpec:
    """The job spec of these prompts with the request's sampling parameters and priority.

    output: of the job's output plan
    """
    return JobSpec(
        prompts=prompts,
        sampling=sampling_of(
            request,
            max_tokens=max_tokens,
            seed=terms.seed,
            vocab_size=tools.vocab_size,
            defaults=tools.generation_defaults,
        ),
        num_choices=num_choices,
        priority=priority_of(request, is_background=terms.is_background),
        output=output,
    )


def not_empty(prompt: tuple[int, ...], field: str) -> tuple[int, ...]:
    """The prompt; raises InvalidRequest with `field` as param when it has no tokens."""
    if not prompt:
        raise InvalidRequest(f"Invalid '{field}': it contains no tokens.", param=field)
    return prompt


def _stored_body(request: CreateJobRequest) -> dict[str, object]:
    """The request body to store. The webhook target has a column of its own, since it may hold a secret."""
    if request.webhook is None:
        return request.sent
    return {name: value for name, value in request.sent.items() if name != "webhook"}
