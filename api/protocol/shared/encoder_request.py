"""Create requests of jobs that an encoder runs: the fields that they share."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from api.protocol.shared.job_request import CreateJobRequest

_MAX_TRUNCATION = 1 << 20


def _not_zero(number: int) -> int:
    if number == 0:
        raise PydanticCustomError("zero", "expected a number of tokens, or -1 for as many as the model reads")
    return number


class EncoderRequest(CreateJobRequest):
    """The shared part of a create request for an encoder.

    truncate_prompt_tokens: tokens to which a longer input is cut at its end, -1 for as many as the model reads; without
                            it, a longer input is refused
    """

    # Answers come at once, so that there is nothing to stream.
    stream: Literal[False] | None = None
    truncate_prompt_tokens: Annotated[int, Field(ge=-1, le=_MAX_TRUNCATION), AfterValidator(_not_zero)] | None = None
