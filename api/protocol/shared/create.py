"""Create requests: the fields that all protocols share (model, metadata, user, store, stream)."""

from api.protocol.shared.sampling_fields import SamplingRequest
from api.protocol.shared.wire import Label, Metadata, Name, SafetyIdentifier


class CreateRequest(SamplingRequest):
    """The shared part of a create request body. Absent and null mean the same."""

    model: Name
    metadata: Metadata | None = None
    prompt_cache_key: Label | None = None
    safety_identifier: SafetyIdentifier | None = None
    store: bool | None = None
    stream: bool | None = None
    user: Label | None = None
