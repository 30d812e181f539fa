"""Inputs that are a text, several texts, token ids or several lists of those: how a union tells them apart."""

from pydantic import Discriminator

from api.protocol.shared.validation_messages import TAG

TEXT, TEXTS, IDS, LISTS = (TAG + name for name in ("text", "texts", "ids", "lists"))
_SHAPE = "expected a string, an array of strings, an array of token ids or an array of arrays of token ids"


def _tag_of(value: object) -> str | None:
    if isinstance(value, str):
        return TEXT
    if not isinstance(value, list):
        return None
    match value[:1]:
        case [int()]:
            return IDS
        case [list()]:
            return LISTS
        case _:
            return TEXTS


# Of a union whose members have these tags.
TEXT_OR_IDS = Discriminator(_tag_of, custom_error_type="shape", custom_error_message=_SHAPE)
