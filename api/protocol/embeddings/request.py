"""The create request of Embeddings.

Source: OpenAI specification of 2026-08-21. `truncate_prompt_tokens` and `normalize` have the names and meanings of
vLLM's extra parameters; `input_type` is ours.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints, Tag

from api.protocol.shared.encoder_request import EncoderRequest
from api.protocol.shared.sampling_fields import TokenId
from api.protocol.shared.text_or_ids import IDS, LISTS, TEXT, TEXT_OR_IDS, TEXTS
from api.protocol.shared.webhook_fields import WebhookTarget, target_of
from storage.contract import JobKind

# OpenAI's limits.
MAX_INPUTS = 2048
MAX_INPUT_IDS = 300_000
_MAX_DIMENSIONS = 1 << 16

Text = Annotated[str, StringConstraints(min_length=1)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_INPUT_IDS, fail_fast=True)]


Input = Annotated[
    Annotated[Text, Tag(TEXT)]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True), Tag(TEXTS)]
    | Annotated[TokenIds, Tag(IDS)]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True), Tag(LISTS)],
    TEXT_OR_IDS,
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
