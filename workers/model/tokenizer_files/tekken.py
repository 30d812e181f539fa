"""Mistral's Tekken files (`tekken.json`): a byte-level BPE vocabulary in order of its merges.

Source: `mistral_common.tokens.tokenizers.tekken` 1.13
"""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from storage.errors import ModelUnsupported

_MAX_BYTES = 256 << 20
_MAX_TOKENS = 1 << 24
# Of files that list none: those of versions before 7.
_OLD_SPECIAL_TOKENS = (
    "<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]", "[TOOL_CALLS]", "[IMG]", "<pad>", "[IMG_BREAK]", "[IMG_END]", "[PREFIX]", "[MIDDLE]",
    "[SUFFIX]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[TOOL_CONTENT]",
)  # fmt: skip
_SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


class _Config(msgspec.Struct, frozen=True):
    """pattern: what pieces of text are merged within."""

    pattern: str
    default_vocab_size: int
    default_num_special_tokens: int
    version: str


class _Token(msgspec.Struct, frozen=True):
    """token_bytes: base64."""

    token_bytes: str


class _SpecialToken(msgspec.Struct, frozen=True):
    rank: int
    token_str: str


class _File(msgspec.Struct, frozen=True):
    config: _Config
    vocab: list[_Token]
    special_tokens: list[_SpecialToken] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TekkenModel:
    """What a Tekken file holds.

    version:  of Mistral's formats of prompts, such as `v3`
    specials: control tokens by id, those without a meaning included
    pieces:   the bytes of the tokens behind them, the first merged first
    """

    version: str
    pattern: str
    specials: tuple[str, ...]
    pieces: tuple[bytes, ...]

    def special_tokens(self) -> dict[str, str]:
        """The tokens with a purpose, in transformers' words."""
        return {name: token for name, token in _SPECIAL_TOKENS.items() if token in self.specials}

    def backend(self) -> Tokenizer:
        """The fast tokenizer."""
        letters = _letters()
        texts = [piece.decode("latin-1").translate(letters) for piece in self.pieces]
        vocabulary = {token: token_id for token_id, token in enumerate([*self.specials, *texts])}
        # As in tiktoken, a piece of text that is a token is not merged of parts.
        backend = Tokenizer(models.BPE(vocab=vocabulary, merges=_merges_of(texts), ignore_merges=True))
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(self.pattern), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        backend.decoder = decoders.ByteLevel()
        backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in self.specials])
        return backend


def read_tekken(path: Path) -> TekkenModel:
    """The model in a file; ModelUnsupported for one that is damaged."""
    if path.stat().st_size > _MAX_BYTES:
        raise ModelUnsupported(f"{path} is too large to be a Tekken tokenizer")
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
        specials = _specials_of(file)
        _check_pattern(file.config.pattern)
        pieces = tuple(
            base64.b64decode(token.token_bytes, validate=True)
            for token in file.vocab[: max(0, file.config.default_vocab_size - len(specials))]
        )
    except (ValueError, msgspec.MsgspecError) as error:
        raise ModelUnsupported(f"{path} is damaged, or no Tekken tokenizer") from error
    if len(pieces) < 256 or len(set(pieces)) < len(pieces) or len(set(specials)) < len(specials):
        raise ModelUnsupported(f"{path} is damaged: it lists too few tokens, or one twice")
    return TekkenModel(version=file.config.version, pattern=file.config.pattern, specials=specials, pieces=pieces)


def _check_pattern(pattern: str) -> None:
    try:
        Regex(pattern)
    except Exception as error:
        raise ValueError("its pattern is none") from error


def _specials_of(file: _File) -> tuple[str, ...]:
    """All control tokens: those that the file names, then as many without a meaning as it says."""
    named: Sequence[str] = _OLD_SPECIAL_TOKENS
    if file.special_tokens is not None:
        ordered = sorted(file.special_tokens, key=lambda token: token.rank)
        if [token.rank for token in ordered] != list(range(len(ordered))):
            raise ValueError("its special tokens have gaps")
        named = [token.token_str for token in ordered]
    count = file.config.default_num_special_tokens
    if not len(named) <= count <= file.config.default_vocab_size <= _MAX_TOKENS:
        raise ValueError("its counts of tokens do not fit")
    return (*named, *(f"<SPECIAL_{number}>" for number in range(len(named), count)))


def _letters() -> dict[int, str]:
    """The letters that stand for bytes in byte-level vocabularies (GPT-2's), by the byte."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def _merges_of(texts: Iterable[str]) -> list[tuple[str, str]]:
    """The merges that the vocabulary implies: each way to make a token of two others."""
    ranks = {text: rank for rank, text in enumerate(texts)}
    merges: list[tuple[str, str]] = []
    for text in ranks:
        halves = [(text[:cut], text[cut:]) for cut in range(1, len(text))]
        known = [half for half in halves if half[0] in ranks and half[1] in ranks]
        merges += sorted(known, key=lambda half: (ranks[half[0]], ranks[half[1]]))
    return merges
