"""Test compilation of grammars: a matcher is made and its first mask computed, over a vocabulary of bytes.

llguidance runs for seconds on hostile texts, and deep ones overflow its stack; callers bound time and stack.
"""

import json
from functools import cache

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from api.protocol.structured.panics import is_panic

_NUM_BYTES = 256
_END = _NUM_BYTES
# Work that a grammar may cause, in llguidance's units: 50,000 per ms for the first two, 20,000 items per ms.
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=50_000,
    max_lexer_states=250_000,
    max_grammar_size=500_000,
    verbose_errors=False,
)
_NEEDS_TOKENIZER = "no tokenizer"


class _Bytes:
    """A tokenizer whose tokens are the bytes, and one that ends the text."""

    eos_token_id = _END
    bos_token_id = None
    tokens = (*(bytes([value]) for value in range(_NUM_BYTES)), b"</s>")
    special_token_ids = (_END,)

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


@cache
def byte_tokenizer() -> LLTokenizer:
    """The vocabulary of bytes; id 256 ends a text."""
    return LLTokenizer(TokenizerWrapper(_Bytes()), n_vocab=_NUM_BYTES + 1, eos_token=_END, slices=[])


def grammar_of(part: dict[str, object]) -> str:
    """The grammar that consists of one part alone."""
    return json.dumps({"grammars": [part]}, ensure_ascii=False)


def matcher_of(grammar: str) -> LLMatcher:
    """A matcher over bytes; it may be in error from the start."""
    return LLMatcher(byte_tokenizer(), grammar, log_level=0, limits=LIMITS)


def refusal_of(grammar: str) -> str | None:
    """Why a grammar does not compile, or allows nothing; None for one that can be used."""
    try:
        matcher = matcher_of(grammar)
        if matcher.is_error():
            return _cleaned(matcher.get_error())
        matcher.compute_bitmask()
        if matcher.is_error():
            return "no text fits it"
        # A text that must go on for ever, as in `start: "a" start`, fails where it is taken.
        return None if matcher.consume_tokens(matcher.compute_ff_tokens()) else _cleaned(matcher.get_error())
    except BaseException as error:
        if not is_panic(error):
            raise
        return "it cannot be compiled"


def names_tokens(grammar: str) -> bool:
    """Whether a grammar that compiles refers to tokens of a vocabulary."""
    is_error, warnings = LLMatcher.validate_grammar_with_warnings(grammar, limits=LIMITS)
    return not is_error and any(warning.startswith(_NEEDS_TOKENIZER) for warning in warnings)


def _cleaned(message: str) -> str:
    """llguidance's message without its state, and as one sentence."""
    lines = [line.strip() for line in message.partition("<non-verbose")[0].splitlines()]
    return "; ".join(line for line in lines if line).rstrip(".;: ")
