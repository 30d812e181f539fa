"""A line of a batch as a job: the same checks as those of a create call, but for what only a waiting caller has."""

import random
from datetime import datetime, timedelta

import msgspec

from api.protocol.batches.batch_line import LineFault, read_line
from api.protocol.bodies.large_json import decode_large
from api.protocol.jobs.prepared import Prepared
from api.protocol.kinds import ENDPOINTS, prepare
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.shared.envelope import INVALID_REQUEST, error_body
from api.protocol.shared.job_request import CreateJobRequest
from api.protocol.structured.constraints import Judged
from api.protocol.thinking.signed_thoughts import thought_key
from storage.batches import batch_lines
from storage.batches.tables import Batch, BatchLine
from storage.contract import BACKGROUND_PRIORITY, PriorityQueue
from storage.errors import InvalidRequest, ModelNotFound, PlatformError, UnsupportedParameter
from storage.jobs.records import NewJob
from storage.settings import RequestSettings

# Their jobs would need a caller, or other jobs.
_REFUSED_FIELDS = ("previous_response_id", "conversation", "webhook", "background_options")
_TRUE_FIELDS = ("stream", "background")


class LineRefusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a line does not become a job: the status and the `error` of its answer; no status for a fault of ours."""

    status_code: int | None
    error: dict[str, object]


def parse_line(data: bytes, batch: Batch) -> CreateJobRequest:
    """The request of a validated line; raises InvalidRequest.

    data: as the input file has it
    """
    line = read_line(data, batch.endpoint, ENDPOINTS)
    assert not isinstance(line, LineFault), "the line was validated, and files do not change"
    kind = ENDPOINTS[batch.endpoint].request
    request = kind.parse_value(decode_large(line.body))
    for name in _REFUSED_FIELDS:
        if name in request.sent:
            raise UnsupportedParameter(f"'{name}' is not supported in lines of a batch.", param=name)
    for name in _TRUE_FIELDS:
        if request.sent.get(name) is True:
            raise UnsupportedParameter(f"'{name}' must not be true in a line of a batch.", param=name)
    request.check_delivery(is_stream=False)
    if batch.priority != BACKGROUND_PRIORITY and not {"priority", "service_tier"} & request.sent.keys():
        return kind.parse_value({**request.sent, "priority": batch.priority})
    return request


def prepare_line(
    request: CreateJobRequest, batch: Batch, tools: PromptTools, judged: dict[str, Judged], settings: RequestSettings
) -> Prepared:
    """The request as a job spec; raises InvalidRequest."""
    pepper = settings.pepper
    prepared = prepare(
        request,
        tools,
        seed=random.getrandbits(63),
        is_background=True,
        judged=judged,
        thought_key=None
        if pepper is None
        else thought_key(pepper.get_secret_value().encode(), batch.owner, request.model),
    )
    if prepared.spec.priority_queue is not PriorityQueue.BACK:
        param = "priority" if "priority" in request.sent else "service_tier"
        message = "Lines of a batch run in the back queue: 'service_tier' flex, and 'priority' 10 or more."
        raise InvalidRequest(message, param=param)
    return prepared


def job_of_line(prepared: Prepared, request: CreateJobRequest, batch: Batch, line: BatchLine, now: datetime) -> NewJob:
    """The job that the line becomes."""
    expiry = request.expires_after
    own_end = batch.expires_at if expiry is None else now + timedelta(seconds=expiry.seconds)
    return NewJob(
        job_id=batch_lines.job_id_of(prepared.kind, batch.id, line.line, batch.created_at),
        owner=batch.owner,
        project_id=batch.owner,
        key_id=batch.key_id,
        kind=prepared.kind,
        model=prepared.model,
        background=True,
        store=prepared.store,
        request=prepared.request,
        context=prepared.context,
        metadata=prepared.metadata,
        spec=prepared.spec,
        created_at=now,
        expires_at=min(own_end, batch.expires_at),
        chain_bytes=line.length,
        batch_id=batch.id,
    )


def refusal_of(error: PlatformError) -> LineRefusal:
    """The refusal of a line whose request is at fault."""
    body = error_body(error.message, INVALID_REQUEST, error.param, error.code)["error"]
    assert isinstance(body, dict)
    return LineRefusal(status_code=404 if isinstance(error, ModelNotFound) else 400, error=body)
