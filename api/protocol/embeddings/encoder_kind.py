"""Job kinds that an encoder runs: what they have in common."""

from collections.abc import Callable
from typing import Any

from api.protocol.answer.outcome import Outcome
from api.protocol.embeddings.object import encoder_receipt
from api.protocol.jobs.kind_spec import KindSpec
from api.protocol.jobs.prepared import Prepared, Terms
from api.protocol.prompt.tokenizing import PromptTools
from api.protocol.shared.encoder_request import EncoderRequest
from storage.contract import JobHeader, JobKind


def encoder_kind(
    kind: JobKind,
    path: str,
    *,
    request: type[EncoderRequest],
    capability: str,
    prepare: Callable[[Any, PromptTools, Terms], Prepared],
    make_object: Callable[[JobHeader, Outcome], dict[str, object]],
    noun: str,
) -> KindSpec:
    """The job kind with this create call, whose answer is the job's result and not its log.

    path:        of its create call
    make_object: the answer; it does not show the metadata
    noun:        what is not streamed
    others:      as in `KindSpec`
    """
    return KindSpec(
        kind=kind,
        path=f"{path}/",
        deleted_object=f"{kind.value}.deleted",
        request=request,
        capability=capability,
        prepare=prepare,
        fold=None,
        num_choices=lambda _header: 0,
        parser=lambda _header: None,
        make_object=lambda header, outcome, _metadata: make_object(header, outcome),
        make_receipt=encoder_receipt,
        is_logged=False,
        stream_refusal=lambda _header: f"{noun} are not streamed",
    )
