"""The job kind of Responses."""

from api.protocol.answer.outcome import Outcome
from api.protocol.families.stored_parser import parser_of
from api.protocol.jobs.kind_spec import KindSpec
from api.protocol.responses.fold import ResponseFold
from api.protocol.responses.object import response_object
from api.protocol.responses.prepare import prepare_response
from api.protocol.responses.request import ResponseRequest
from storage.contract import JobHeader, JobKind


def _object(header: JobHeader, outcome: Outcome, _metadata: dict[str, str] | None) -> dict[str, object]:
    return response_object(header, outcome)


RESPONSE = KindSpec(
    kind=JobKind.RESPONSE,
    path="/v1/responses/",
    deleted_object="response",
    request=ResponseRequest,
    prepare=prepare_response,
    fold=ResponseFold,
    num_choices=lambda _header: 1,
    parser=parser_of,
    make_object=_object,
    make_receipt=response_object,
    counts_from_zero=True,
    shows_cancelled=True,
)
