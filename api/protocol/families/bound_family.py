"""A family together with the tokens of a model's vocabulary that are its markers."""

from collections.abc import Callable, Mapping

import msgspec

from api.protocol.families.family import Family


class BoundFamily(msgspec.Struct, frozen=True, kw_only=True):
    """A family as a model writes it.

    family:    with MARKER_SIGN before each marker that is a token
    token_ids: of these markers, by their text without the sign
    template:  the model's own description of its answers, where the family was read from it
    """

    family: Family
    token_ids: Mapping[str, int] = {}
    template: str | None = None


def bind(family: Family, token_id_of: Callable[[str], int | None], template: str | None = None) -> BoundFamily:
    """The family as a vocabulary writes it.

    token_id_of: the id of the added token with this text, None where there is none
    """
    found = {marker: token_id_of(marker) for marker in family.markers}
    ids = {marker: token_id for marker, token_id in found.items() if token_id is not None}
    return BoundFamily(family=family.bound_to(ids), token_ids=ids, template=template)
