"""Errors about addresses to which this installation sends."""

from storage.errors import InvalidRequest


class WebhookUrlRefused(InvalidRequest):
    """A URL to which no webhook is sent: of a wrong form, or leading to where the public does not."""

    code = "webhook_url_refused"
