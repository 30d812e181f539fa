"""Which ids of a vocabulary have text, and which are bytes."""

import re

from tokenizers import Tokenizer

# How byte-fallback vocabularies write a token that is one byte.
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def spoken_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that have text of their own: all but special tokens."""
    special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return frozenset(tokenizer.get_vocab(with_added_tokens=True).values()) - special


def fallback_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids of tokens that are one byte each, where the decoder reads them so."""
    if not has_decoder(tokenizer, "ByteFallback"):
        return frozenset()
    vocabulary = tokenizer.get_vocab(with_added_tokens=False).items()
    return frozenset(token_id for token, token_id in vocabulary if BYTE_TOKEN.fullmatch(token))


def has_decoder(tokenizer: Tokenizer, kind: str) -> bool:
    """Whether a step of the tokenizer's decoder is of this type."""
    return tokenizer.decoder is not None and f'"{kind}"'.encode() in bytes(tokenizer.decoder.__getstate__())
