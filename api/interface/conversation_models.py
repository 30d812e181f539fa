"""Response models of conversations for the OpenAPI schema."""

from typing import Literal

from pydantic import BaseModel, RootModel

from api.interface.answer_models import Page
from api.interface.item_models import InputItem


class ConversationObject(BaseModel):
    """A conversation."""

    id: str
    object: Literal["conversation"]
    created_at: int
    metadata: dict[str, str]


class ConversationItem(RootModel[InputItem]):
    """An item of a conversation."""


class ConversationItemList(Page):
    """A page of items of a conversation."""

    data: list[InputItem]
