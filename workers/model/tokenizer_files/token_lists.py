"""Fast tokenizers made of a list of tokens with their types and ranks, as SentencePiece models and GGUF files have."""

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

from tokenizers import AddedToken, Tokenizer, models


class TokenKind(IntEnum):
    """Types of tokens, in the numbers of SentencePiece, which GGUF (`tokenizer.ggml.token_type`) took over."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def sentence_piece_bpe(
    vocabulary: Mapping[str, int], merges: Iterable[tuple[str, str]], unknown: str | None
) -> Tokenizer:
    """SentencePiece's BPE: characters that are no tokens become the tokens of their bytes."""
    return Tokenizer(
        models.BPE(vocab=dict(vocabulary), merges=list(merges), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )


def derived_merges(
    tokens: Sequence[str], kinds: Sequence[int], ranks: Sequence[float], vocabulary: Mapping[str, int]
) -> list[tuple[str, str]]:
    """The merges that a vocabulary implies: each way to make a token of two others, the highest rank first."""
    found: list[tuple[float, str, str]] = []
    for token, kind, rank in zip(tokens, kinds, ranks, strict=True):
        if kind in (TokenKind.CONTROL, TokenKind.UNKNOWN, TokenKind.BYTE):
            continue
        halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        known = [(left, right) for left, right in halves if left in vocabulary and right in vocabulary]
        known.sort(key=lambda pair: (vocabulary[pair[0]], vocabulary[pair[1]]))
        found += [(rank, left, right) for left, right in known]
    found.sort(key=lambda merge: (merge[0], len(merge[1]), len(merge[2])), reverse=True)
    return [(left, right) for _, left, right in found]


def add_tokens(
    backend: Tokenizer, tokens: Sequence[str], kinds: Sequence[int], right_stripped: frozenset[str] = frozenset()
) -> None:
    """Add control tokens, which are special, and tokens of the model's maker, which are not; both match as a whole.

    right_stripped: control tokens that take the white space behind them
    """
    known = backend.get_vocab(with_added_tokens=False)
    added = [
        AddedToken(
            token,
            normalized=False,
            special=kind == TokenKind.CONTROL,
            rstrip=kind == TokenKind.CONTROL and token in right_stripped,
        )
        for token, kind in zip(tokens, kinds, strict=True)
        if kind in (TokenKind.CONTROL, TokenKind.USER_DEFINED) and token in known
    ]
    backend.add_special_tokens([token for token in added if token.special])
    backend.add_tokens([token for token in added if not token.special])
