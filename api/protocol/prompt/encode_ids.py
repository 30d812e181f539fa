"""Encoding of a text by a tokenizer, so that a long text does not keep other threads waiting."""

from tokenizers import Tokenizer

# Shorter texts take less time than a switch between threads.
_SHORT_CHARACTERS = 4096


def encode_ids(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool) -> list[int]:
    """The token ids of the text."""
    if len(text) <= _SHORT_CHARACTERS:
        return list(tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)
    # `encode` holds the interpreter lock for the whole text, a batch of one releases it.
    (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    return list(encoding.ids)
