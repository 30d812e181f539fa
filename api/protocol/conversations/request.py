"""Requests of `/v1/conversations`.

Source: OpenAI's types of conversations, `openai` 3.57.0.
"""

from typing import Annotated

from pydantic import Field

from api.protocol.responses.input_items import InputItem
from api.protocol.shared.wire import Metadata, WireRequest

_MAX_ITEMS = 20


class NewConversation(WireRequest):
    """The body of `POST /v1/conversations`."""

    items: Annotated[list[InputItem], Field(max_length=_MAX_ITEMS, fail_fast=True)] | None = None
    metadata: Metadata | None = None


class ConversationUpdate(WireRequest):
    """The body of `POST /v1/conversations/{id}`: metadata in place of what it had; null is none."""

    metadata: Metadata | None


class NewItems(WireRequest):
    """The body of `POST /v1/conversations/{id}/items`."""

    items: Annotated[list[InputItem], Field(min_length=1, max_length=_MAX_ITEMS, fail_fast=True)]
