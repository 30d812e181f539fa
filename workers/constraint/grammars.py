"""Compiled grammars for one model's tokenizer: an LRU cache of llguidance's matchers, copied for each sequence."""

import hashlib
import re
import secrets
from collections import OrderedDict
from collections.abc import Collection

import msgspec
import structlog
from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from api.protocol.structured.panics import is_panic

# Compiled grammars that are kept, and the characters of their texts together.
_MAX_KEPT = 256
_MAX_KEPT_CHARS = 4 << 20
# More fuel than at submission, where a grammar is tried with single bytes for tokens: what was accepted there must not
# run out of it here. At most some tenths of a second for a compilation, and some tens of milliseconds for a mask.
_LIMITS = LLParserLimits(
    initial_lexer_fuel=4_000_000, step_lexer_fuel=400_000, step_max_items=100_000, verbose_errors=False
)
# Added tokens that stand for no text of their own.
_MARKER = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")

log = structlog.get_logger()


class GrammarUnusable(Exception):
    """A grammar, or a tokenizer, of which no matcher can be made."""


class Grammars:
    """Makes matchers, for one thread at a time. The tokenizer is read at the first call, which takes up to a second."""

    def __init__(self, tokenizer_json: str, *, vocab_size: int, eos_token_ids: Collection[int]) -> None:
        """vocab_size: logits of a row, and bits of a mask"""
        self._tokenizer_json = tokenizer_json
        self._vocab_size = vocab_size
        self._eos_token_ids = sorted(eos_token_ids)
        self._tokenizer: LLTokenizer | None = None
        self._kept: OrderedDict[bytes, tuple[LLMatcher, int]] = OrderedDict()
        self._num_chars = 0

    def matcher(self, grammar: str) -> LLMatcher:
        """A matcher at the beginning of an output. Raises GrammarUnusable."""
        try:
            return self._find(grammar).deep_copy()
        except BaseException as error:
            if not is_panic(error):
                raise
            raise GrammarUnusable("The grammar cannot be compiled") from error

    def read_tokenizer(self) -> None:
        """Read the tokenizer now: it holds Python's lock for up to a second, in which no other thread runs."""
        try:
            self._read_tokenizer()
        except GrammarUnusable as error:
            log.warning("grammars_unavailable", reason=str(error.__cause__))

    def _find(self, grammar: str) -> LLMatcher:
        digest = hashlib.sha256(grammar.encode()).digest()
        if digest not in self._kept:
            self._keep(digest, self._compiled(grammar), len(grammar))
        self._kept.move_to_end(digest)
        return self._kept[digest][0]

    def _keep(self, digest: bytes, matcher: LLMatcher, num_chars: int) -> None:
        self._kept[digest] = matcher, num_chars
        self._num_chars += num_chars
        while len(self._kept) > 1 and (len(self._kept) > _MAX_KEPT or self._num_chars > _MAX_KEPT_CHARS):
            _, (_, num_dropped) = self._kept.popitem(last=False)
            self._num_chars -= num_dropped

    def _compiled(self, grammar: str) -> LLMatcher:
        matcher = LLMatcher(self._read_tokenizer(), grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise GrammarUnusable(f"The grammar cannot be compiled: {matcher.get_error()[:200]}")
        return matcher

    def _read_tokenizer(self) -> LLTokenizer:
        if self._tokenizer is None:
            try:
                renamed = _with_renamed_markers(self._tokenizer_json, self._vocab_size)
                self._tokenizer = LLTokenizer(renamed, n_vocab=self._vocab_size, eos_token=self._eos_token_ids)
            except (ValueError, msgspec.MsgspecError) as error:
                raise GrammarUnusable("Grammars cannot be applied to the tokens of this model") from error
        return self._tokenizer


def _with_renamed_markers(tokenizer_json: str, vocab_size: int) -> str:
    """The tokenizer with its markers, such as `<tool_call>`, as special tokens that no text spells.

    Added tokens without a row of the model are left out, as the last one of Gemma 3.

    Many tokenizers leave them ordinary. Then a text that may hold these letters could hold the token, and a marker
    would be written where the grammar has none. And a text that the grammar asks for letter by letter would be
    tokenized as the marker, which the grammar does not take: grammars name markers by their ids. White space that a
    vocabulary adds as tokens stays ordinary.
    """
    # A name that callers knew could be asked for by a grammar.
    secret = secrets.token_hex(16)
    tokenizer = msgspec.json.decode(tokenizer_json)
    vocabulary = tokenizer.get("model", {}).get("vocab")
    added = [token for token in tokenizer.get("added_tokens") or () if token["id"] < vocab_size]
    tokenizer["added_tokens"] = added
    for token in added:
        content, name = token["content"], f"{secret}{token['content']}"
        if not token["special"] and _MARKER.fullmatch(content) is None:
            continue
        if isinstance(vocabulary, dict) and content in vocabulary:
            vocabulary[name] = vocabulary.pop(content)
        elif isinstance(vocabulary, list) and token["id"] < len(vocabulary):
            vocabulary[token["id"]][0] = name
        token |= {"content": name, "special": True}
    return msgspec.json.encode(tokenizer).decode()
