"""Which ids of a vocabulary have text."""

from tokenizers import Tokenizer


def spoken_ids(tokenizer: Tokenizer) -> frozenset[int]:
    """The ids that have text of their own: all but special tokens."""
    special = {token_id for token_id, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    return frozenset(tokenizer.get_vocab(with_added_tokens=True).values()) - special
