"""The create requests of Rerank and Score.

Source: Jina's and Cohere's `/v1/rerank`, vLLM's `/v1/score`.
"""

from typing import Annotated, ClassVar, Self

from pydantic import Discriminator, Field, Tag, model_validator

from api.protocol.embeddings.request import MAX_INPUTS, Text
from api.protocol.shared.encoder_request import EncoderRequest
from api.protocol.shared.validation_messages import TAG
from api.protocol.shared.webhook_fields import WebhookTarget, target_of
from api.protocol.shared.wire import fault
from storage.contract import JobKind

_ONE, _MANY = (TAG + name for name in ("one", "many"))
_Texts = Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]


def _tag_of(value: object) -> str | None:
    if isinstance(value, str):
        return _ONE
    return _MANY if isinstance(value, list) else None


_OneOrMany = Annotated[
    Annotated[Text, Tag(_ONE)] | Annotated[_Texts, Tag(_MANY)],
    Discriminator(_tag_of, custom_error_type="shape", custom_error_message="expected a string or an array of strings"),
]


class RerankRequest(EncoderRequest):
    """The body of `POST /v1/rerank`."""

    kind: ClassVar = JobKind.RERANK

    query: Text
    documents: _Texts
    return_documents: bool | None = None
    top_n: Annotated[int, Field(ge=1, le=1 << 31)] | None = None
    webhook: Annotated[WebhookTarget, target_of(JobKind.RERANK)] | None = None


class ScoreRequest(EncoderRequest):
    """The body of `POST /v1/score`: one text against one or many, or as many pairs as there are texts on each side."""

    kind: ClassVar = JobKind.SCORE

    text_1: _OneOrMany
    text_2: _OneOrMany
    webhook: Annotated[WebhookTarget, target_of(JobKind.SCORE)] | None = None

    @model_validator(mode="after")
    def _has_pairs(self) -> Self:
        if len(self.first_texts) not in (1, len(self.second_texts)):
            raise fault("text_1", "expected one text, or as many as in 'text_2'")
        return self

    @property
    def first_texts(self) -> list[str]:
        """`text_1` as a list."""
        return [self.text_1] if isinstance(self.text_1, str) else self.text_1

    @property
    def second_texts(self) -> list[str]:
        """`text_2` as a list."""
        return [self.text_2] if isinstance(self.text_2, str) else self.text_2
