"""Create requests: the fields that all protocols share (model, metadata, user, store, stream)."""

from typing import ClassVar

from api.protocol.shared.deadline_fields import DatedRequest
from api.protocol.shared.sampling_fields import SamplingRequest
from api.protocol.shared.tiers import TieredRequest
from api.protocol.shared.webhook_fields import WebhookTarget
from api.protocol.shared.wire import Label, Metadata, Name, SafetyIdentifier, StreamOptions
from storage.contract import JobKind
from storage.errors import InvalidRequest


class CreateJobRequest(TieredRequest, DatedRequest):
    """The part of a create request body that all kinds of jobs share. Absent and null mean the same."""

    kind: ClassVar[JobKind]

    model: Name
    metadata: Metadata | None = None
    safety_identifier: SafetyIdentifier | None = None
    store: bool | None = None
    stream: bool | None = None
    user: Label | None = None
    webhook: WebhookTarget | None = None

    @property
    def previous_id(self) -> str | None:
        """The id of the job that this request continues, if any."""
        return None

    @property
    def conversation_id(self) -> str | None:
        """The id of the conversation that this request goes on with, if any."""
        return None

    @property
    def window_s(self) -> int | None:
        """Seconds after which the job fails unless it has ended, by its completion window."""
        return None

    @property
    def continuation_id(self) -> str | None:
        """Jobs of one id run one after another."""
        return None

    @property
    def is_truncated(self) -> bool:
        """Whether the oldest turns may be left out of the prompt."""
        return False

    @property
    def is_background(self) -> bool:
        """Whether the body asks for a background job."""
        return False

    def check_delivery(self, *, is_stream: bool) -> None:
        """Raise InvalidRequest when the job cannot be streamed, or has options of a stream and is none."""


class JobRequest(CreateJobRequest, SamplingRequest):
    """The part of a create request body that all jobs share which generate text."""

    prompt_cache_key: Label | None = None


class ChunkedRequest(JobRequest):
    """The create request of a protocol whose stream is made of chunks."""

    stream_options: StreamOptions | None = None

    def check_delivery(self, *, is_stream: bool) -> None:
        if self.stream_options is not None and not is_stream:
            raise InvalidRequest(
                "The 'stream_options' parameter is only allowed when 'stream' is true.", param="stream_options"
            )
