"""The job kind of Completions."""

from api.protocol.answer.completion_parts import async_object
from api.protocol.answer.outcome import Outcome
from api.protocol.completions.fold import CompletionFold
from api.protocol.completions.object import completion_object, is_chosen_from, num_completion_choices
from api.protocol.completions.prepare import prepare_completion
from api.protocol.completions.request import NOT_STREAMED, CompletionRequest
from api.protocol.jobs.kind_spec import KindSpec
from storage.contract import JobHeader, JobKind


def _object(header: JobHeader, outcome: Outcome, _metadata: dict[str, str] | None) -> dict[str, object]:
    return completion_object(header, outcome)


def _stream_refusal(header: JobHeader) -> str | None:
    return f"with 'best_of' {NOT_STREAMED}" if is_chosen_from(header) else None


COMPLETION = KindSpec(
    kind=JobKind.COMPLETION,
    path="/v1/completions/",
    deleted_object="text_completion.deleted",
    request=CompletionRequest,
    prepare=prepare_completion,
    fold=CompletionFold,
    num_choices=num_completion_choices,
    # Completions have neither reasoning nor tools: their output is text whatever it is.
    parser=lambda _header: None,
    make_object=_object,
    make_receipt=lambda header, outcome: async_object(header, outcome.end),
    stream_refusal=_stream_refusal,
)
