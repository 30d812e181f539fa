"""Encoding of a text by a tokenizer, which lets other threads run meanwhile."""

from tokenizers import Tokenizer


def encode_ids(tokenizer: Tokenizer, text: str, *, add_special_tokens: bool) -> list[int]:
    """The token ids of the text."""
    # `encode` holds the interpreter lock for the whole text, a batch of one releases it. "Fast" leaves out offsets.
    (encoding,) = tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
    return list(encoding.ids)
