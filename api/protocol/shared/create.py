"""The fields that every create call has, in whatever protocol: which model, who asks, and what is kept."""

from api.protocol.shared.sampling_fields import SamplingRequest
from api.protocol.shared.wire import Label, Metadata, Name, SafetyIdentifier


class CreateRequest(SamplingRequest):
    """What the body of a create call says in any protocol; absent and null are the same."""

    model: Name
    metadata: Metadata | None = None
    prompt_cache_key: Label | None = None
    safety_identifier: SafetyIdentifier | None = None
    store: bool | None = None
    stream: bool | None = None
    user: Label | None = None
