"""The create request of Embeddings.

Source: OpenAI specification of 2026-08-21. `truncate_prompt_tokens` and `normalize` have the names and meanings of
vLLM's extra parameters; `input_type` is ours.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from api.protocol.shared.encoder_request import EncoderRequest
from api.protocol.shared.sampling_fields import TokenId
from api.protocol.shared.validation_messages import TAG
from api.protocol.shared.webhook_fields import WebhookTarget, target_of
from storage.contract import JobKind

# OpenAI's limits.
MAX_INPUTS = 2048
MAX_INPUT_IDS = 300_000
_MAX_DIMENSIONS = 1 << 16
_TEXT, _TEXTS, _IDS, _LISTS = (TAG + name for name in ("text", "texts", "ids", "lists"))
_SHAPE = "expected a string, an array of strings, an array of token ids or an array of arrays of token ids"

Text = Annotated[str, StringConstraints(min_length=1)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_INPUT_IDS, fail_fast=True)]


def _tag_of(value: object) -> str | None:
    if isinstance(value, str):
        return _TEXT
    if not isinstance(value, list):
        return None
    match value[:1]:
        case [int()]:
            return _IDS
        case [list()]:
            return _LISTS
        case _:
            return _TEXTS


Input = Annotated[
    Annotated[Text, Tag(_TEXT)]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True), Tag(_TEXTS)]
    | Annotated[TokenIds, Tag(_IDS)]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True), Tag(_LISTS)],
    Discriminator(_tag_of, custom_error_type="shape", custom_error_message=_SHAPE),
]


class EmbeddingRequest(EncoderRequest):
    """The body of `POST /v1/embeddings`."""

    kind: ClassVar = JobKind.EMBEDDING

    input: Input
    dimensions: Annotated[int, Field(ge=1, le=_MAX_DIMENSIONS)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    input_type: Literal["query", "document"] | None = None
    normalize: bool | None = None
    webhook: Annotated[WebhookTarget, target_of(JobKind.EMBEDDING)] | None = None

    @property
    def inputs(self) -> list[str] | list[list[int]]:
        """The inputs as a list, for every shape in which they may be sent."""
        if isinstance(self.input, str):
            return [self.input]
        if isinstance(self.input[0], int):
            return [self.input]
        return self.input

    @property
    def fields(self) -> list[str]:
        """The request field of each input."""
        is_one = isinstance(self.input, str) or isinstance(self.input[0], int)
        return ["input"] if is_one else [f"input[{index}]" for index in range(len(self.input))]
