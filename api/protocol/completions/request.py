"""The create request of Completions.

Source: OpenAI specification of 2026-08-21. `store` and `metadata` are our extensions, since all requests become jobs.
"""

from typing import Annotated, ClassVar, LiteralString, Self

from pydantic import Field, Tag, model_validator

from api.protocol.shared.job_request import ChunkedRequest
from api.protocol.shared.sampling_fields import TokenId
from api.protocol.shared.text_or_ids import IDS, LISTS, TEXT, TEXT_OR_IDS, TEXTS
from api.protocol.shared.webhook_fields import WebhookTarget, target_of
from api.protocol.shared.wire import INT64_MAX, MAX_CHOICES, NumChoices, Refused, fault
from api.protocol.structured.format_fields import StructuredRequest
from storage.contract import JobKind
from storage.errors import InvalidRequest

NOT_STREAMED: LiteralString = "the best choices are known only at the end, so they cannot be streamed"
# OpenAI's limits.
_MAX_LOGPROBS = 5
_MAX_BEST_OF = 20

TokenIds = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]


Prompt = Annotated[
    Annotated[str, Tag(TEXT)]
    | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES), Tag(TEXTS)]
    | Annotated[TokenIds, Tag(IDS)]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_CHOICES), Tag(LISTS)],
    TEXT_OR_IDS,
]


class CompletionRequest(ChunkedRequest, StructuredRequest):
    """The body of `POST /v1/completions`."""

    kind: ClassVar = JobKind.COMPLETION

    prompt: Prompt
    add_special_tokens: bool | None = None
    allow_special_tokens: bool | None = None
    best_of: Annotated[int, Field(ge=1, le=_MAX_BEST_OF)] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Field(ge=0, le=_MAX_LOGPROBS)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    n: NumChoices | None = None
    webhook: Annotated[WebhookTarget, target_of(JobKind.COMPLETION)] | None = None

    suffix: Refused = None

    @model_validator(mode="after")
    def _has_few_choices(self) -> Self:
        if len(self.prompts) * self.num_generated > MAX_CHOICES:
            field = "n" if self.best_of is None else "best_of"
            raise fault(field, "the number of prompts times the choices of each must be at most 128")
        return self

    @model_validator(mode="after")
    def _has_more_choices_than_it_shows(self) -> Self:
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise fault("best_of", "it must be at least 'n'")
        if self.is_chosen_from and self.stream:
            raise fault("best_of", NOT_STREAMED)
        return self

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.max_tokens == 0 and not self.echo:
            raise fault("max_tokens", "0 needs 'echo', otherwise the answer is empty")
        return self

    def check_delivery(self, *, is_stream: bool) -> None:
        super().check_delivery(is_stream=is_stream)
        if is_stream and self.is_chosen_from:
            raise InvalidRequest(f"Invalid 'best_of': {NOT_STREAMED}.", param="best_of")

    @property
    def num_generated(self) -> int:
        """Number of choices to generate for each prompt."""
        return self.best_of or self.n or 1

    @property
    def is_chosen_from(self) -> bool:
        """Whether more choices are generated than returned (`best_of`)."""
        return self.num_generated > (self.n or 1)

    @property
    def num_logprobs(self) -> int | None:
        # The best choice is found by the log probabilities of its tokens.
        return 0 if self.logprobs is None and self.is_chosen_from else self.logprobs

    @property
    def num_prompt_logprobs(self) -> int | None:
        return self.logprobs if self.echo else None

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list, for every shape in which they may be sent."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [self.prompt]
        return self.prompt
