"""Create requests: the fields that all protocols share (model, metadata, user, store, stream)."""

from typing import ClassVar

from api.protocol.shared.sampling_fields import SamplingRequest
from api.protocol.shared.webhook_fields import WebhookTarget
from api.protocol.shared.wire import Label, Metadata, Name, SafetyIdentifier
from storage.contract import JobKind


class JobRequest(SamplingRequest):
    """The shared part of a create request body. Absent and null mean the same."""

    kind: ClassVar[JobKind]

    model: Name
    metadata: Metadata | None = None
    prompt_cache_key: Label | None = None
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
    def is_background(self) -> bool:
        """Whether the body asks for a background job."""
        return False

    def check_streamable(self) -> None:
        """Raise InvalidRequest when the job's choices cannot be streamed."""
