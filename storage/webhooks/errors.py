"""Errors about webhooks: endpoints, their addresses, deliveries and signatures."""

from storage.errors import PlatformError


class WebhookEndpointNotFound(PlatformError):
    """No such webhook endpoint for this owner, or it was deleted."""

    code = "not_found"


class WebhookDeliveryNotFound(PlatformError):
    """No such delivery for this owner, or it was erased."""

    code = "not_found"


class WebhookEndpointDisabled(PlatformError):
    """The webhook endpoint is disabled: nothing is sent to it until it is enabled."""

    code = "webhook_endpoint_disabled"


class WebhookUnanswered(PlatformError):
    """What was to try a webhook receiver got no answer, or was not even sent."""

    code = "webhook_unanswered"


class WebhookSignatureInvalid(PlatformError):
    """What came is not what the holder of the secret sent just now."""

    code = "webhook_signature_invalid"
