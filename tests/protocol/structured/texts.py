"""Texts that fit a grammar part: tried one by one, or written byte by byte by random choices within the masks."""

import random

from llguidance import LLMatcher

from api.protocol.structured.compiling import grammar_of, matcher_of
from api.protocol.structured.constraints import Judged

_END = 256
# Bytes that close what is open, and that which ends a number; random texts prefer them more and more.
_CLOSING = frozenset(b'"}]')
_NEXT = frozenset(b",")


def matcher_for(judged: Judged) -> LLMatcher:
    """A matcher of the part alone, over bytes."""
    matcher = matcher_of(grammar_of(judged.grammar_part))
    assert not matcher.is_error(), matcher.get_error()
    return matcher


def fits(matcher: LLMatcher, text: str) -> bool:
    """Whether the whole text fits."""
    fresh, data = matcher.deep_copy(), list(text.encode())
    return fresh.try_consume_tokens(data) == len(data) and fresh.is_accepting()


def allowed(matcher: LLMatcher) -> set[int]:
    """The bytes that may come next; 256 is the end."""
    mask = matcher.compute_bitmask()
    return {index for index in range(_END + 1) if mask[index // 8] >> index % 8 & 1}


def random_text(matcher: LLMatcher, source: random.Random, *, num_bytes: int = 300) -> str | None:
    """A text by random choices among what is allowed; None where it is not complete after so many bytes."""
    state, data = matcher.deep_copy(), bytearray()
    for position in range(num_bytes):
        choices = allowed(state)
        assert not state.is_error(), state.get_error()
        if _END in choices and (len(choices) == 1 or source.random() < 0.5):
            return data.decode()
        choices.discard(_END)
        ascii_choices = sorted(choice for choice in choices if choice < 128) or sorted(choices)
        closing = sorted(_CLOSING & choices or _NEXT & choices)
        chosen = source.choice(closing if closing and source.random() < position / 40 else ascii_choices)
        assert state.consume_token(chosen)
        data.append(chosen)
    return None
