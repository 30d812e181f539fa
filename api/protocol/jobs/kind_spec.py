"""The description of a job kind: everything that differs between the wires, in one value."""

from collections.abc import Callable
from typing import Any

import msgspec

from api.protocol.answer.fold import Fold
from api.protocol.answer.outcome import Outcome
from api.protocol.answer.segments import SegmentParser
from api.protocol.jobs.prepared import Prepared, Terms
from api.protocol.prompt.tokenizing import COMPLETION, PromptTools
from api.protocol.shared.job_request import CreateJobRequest
from storage.contract import JobHeader, JobKind


class KindSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A job kind. Each wire's folder describes its own in `kind.py`; `api/protocol/kinds.py` lists them.

    kind:            its name in rows, with the prefix of public ids and the noun of webhook events
    path:            of its jobs, without the id
    deleted_object:  the `object` of the answer to a DELETE
    request:         the class of its create request
    capability:      what a model must be capable of, by the name in its manifest
    prepare:         what to store and run for such a request
    fold:            makes its stream from the log; None for a kind without streams
    num_choices:     choices in the log
    parser:          a fresh segment parser of the job's output; None for plain text
    make_object:     the job as its wire shows it; metadata is None when it was never changed
    make_receipt:    the body of a 202, and what its object is until there is an answer
    counts_from_zero: whether `starting_after` of its streams is the number of the last frame that was received, the
                     first being 0; otherwise it is the number of frames received
    shows_cancelled: whether the object of a cancelled job is an answer; otherwise a waiting caller gets an error
    is_logged:       whether the answer is in the log; otherwise only in the row's result
    stream_refusal:  why a stored job cannot be streamed, the refused field first; None when it can
    """

    kind: JobKind
    path: str
    deleted_object: str
    request: type[CreateJobRequest]
    # The table pairs each request class with its function; the union of all requests is not known here.
    prepare: Callable[[Any, PromptTools, Terms], Prepared]
    fold: Callable[[JobHeader], Fold] | None
    num_choices: Callable[[JobHeader], int]
    parser: Callable[[JobHeader], SegmentParser | None]
    make_object: Callable[[JobHeader, Outcome, dict[str, str] | None], dict[str, object]]
    make_receipt: Callable[[JobHeader, Outcome], dict[str, object]]
    counts_from_zero: bool = False
    shows_cancelled: bool = False
    capability: str = COMPLETION
    is_logged: bool = True
    stream_refusal: Callable[[JobHeader], str | None] = lambda _header: None
