"""Request bodies of `/v1/batches`. Source: openai SDK 3.57.0; `requests`, `priority` and other windows are ours."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from api.protocol.shared.wire import Metadata, Name, Wire, WireRequest, fault
from storage.contract import BACKGROUND_PRIORITY

MAX_INLINE_REQUESTS = 1000
MIN_WINDOW_H, MAX_WINDOW_H = 1, 168
_WINDOW = re.compile(r"([1-9][0-9]{0,2})h", re.ASCII)


def _is_window(text: str) -> str:
    found = _WINDOW.fullmatch(text)
    if found is None or not MIN_WINDOW_H <= int(found[1]) <= MAX_WINDOW_H:
        raise PydanticCustomError("window", "must be whole hours from 1h to 168h, such as 24h")
    return text


Window = Annotated[str, StringConstraints(max_length=16), AfterValidator(_is_window)]


def window_s(window: str) -> int:
    """The seconds of a completion window."""
    return int(window.removesuffix("h")) * 3600


class OutputExpiry(Wire):
    """When the files of the results expire, in seconds after they were made."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]


class NewBatch(WireRequest):
    """A batch of an input file, or of requests in the body, which become an input file.

    priority: of its lines, as of jobs in the back queue: a lower number goes first
    """

    endpoint: Name
    completion_window: Window
    input_file_id: Name | None = None
    requests: Annotated[list[object], Field(min_length=1, max_length=MAX_INLINE_REQUESTS)] | None = None
    metadata: Metadata | None = None
    output_expires_after: OutputExpiry | None = None
    priority: Annotated[int, Field(ge=BACKGROUND_PRIORITY, le=1000)] | None = None

    @model_validator(mode="after")
    def _has_one_input(self) -> Self:
        if (self.input_file_id is None) == (self.requests is None):
            raise fault("input_file_id", "give either 'input_file_id' or 'requests'")
        return self


class BatchRetry(WireRequest):
    """A new batch of the lines that failed, expired or were cancelled; its window is the old one's unless given."""

    completion_window: Window | None = None
