"""SentencePiece models (`tokenizer.model`): read, and made a fast tokenizer.

Source: https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from transformers import LlamaTokenizer

from storage.errors import ModelUnsupported
from workers.model.tokenizer_files.token_lists import TokenKind, add_tokens, derived_merges, sentence_piece_bpe

# More than any vocabulary has; a file that is none must not fill the memory.
_MAX_BYTES = 64 << 20
# Fields of the messages.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE, _SCORE, _TYPE = 1, 2, 3
_MODEL_TYPE, _BYTE_FALLBACK, _UNKNOWN_ID, _BEGIN_ID, _END_ID = 3, 35, 40, 41, 42
_CHARACTER_MAP, _ADDS_PREFIX, _REMOVES_SPACES, _ESCAPES_SPACES = 2, 3, 4, 5
_BPE = 2
_SPACE = "▁"
# Sizes of fields by their wire type; 0 is a number of variable length, 2 are bytes with their length before them.
_FIXED_BYTES = {1: 8, 5: 4}


@dataclass(frozen=True, slots=True, kw_only=True)
class SentencePieceModel:
    """What a model file holds.

    tokens: by id
    kinds:  `TokenKind` of each
    ranks:  its score; the highest is merged first
    """

    tokens: tuple[str, ...]
    kinds: tuple[int, ...]
    ranks: tuple[float, ...]
    unknown_id: int
    begin_id: int
    end_id: int

    def special_tokens(self) -> dict[str, str]:
        """The tokens with a purpose, in transformers' words."""
        ids = {"unk_token": self.unknown_id, "bos_token": self.begin_id, "eos_token": self.end_id}
        return {name: self.tokens[one] for name, one in ids.items() if 0 <= one < len(self.tokens)}

    def backend(self, *, is_for_own_template: bool) -> Tokenizer:
        """The fast tokenizer.

        is_for_own_template: the model has a chat template, which is written for transformers' rule: a space is put
                             before a text that begins with none. Else SentencePiece's own rule holds, and Mistral's: a
                             space is put before each text between control tokens.
        """
        vocabulary = {token: token_id for token_id, token in enumerate(self.tokens)}
        merges = derived_merges(self.tokens, self.kinds, self.ranks, vocabulary)
        backend = sentence_piece_bpe(vocabulary, merges, self.special_tokens().get("unk_token"))
        # Its rules only: it would add special tokens that the file has not.
        rules = LlamaTokenizer().backend_tokenizer
        backend.decoder = rules.decoder
        if is_for_own_template:
            backend.pre_tokenizer = rules.pre_tokenizer
            add_tokens(backend, self.tokens, self.kinds)
            return backend
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
        whole = [token for token, kind in zip(self.tokens, self.kinds, strict=True) if kind == TokenKind.USER_DEFINED]
        if whole:
            # Added tokens would get a space behind them: text between them would be normalized apart.
            longest_first = sorted(map(re.escape, whole), key=len, reverse=True)
            backend.pre_tokenizer = pre_tokenizers.Split(Regex("|".join(longest_first)), behavior="isolated")
            backend.model.ignore_merges = True
        control = [kind if kind == TokenKind.CONTROL else TokenKind.NORMAL for kind in self.kinds]
        add_tokens(backend, self.tokens, control)
        return backend


def read_sentence_piece(path: Path) -> SentencePieceModel:
    """The model in a file; ModelUnsupported for one that is damaged or works by other rules than Llama's."""
    if path.stat().st_size > _MAX_BYTES:
        raise ModelUnsupported(f"{path} is too large to be a SentencePiece model")
    try:
        model = _fields_of(path.read_bytes())
        pieces = [_single(piece) for piece in _messages(model, _PIECES)]
        trainer, normalizer = (_single(next(_messages(model, field), b"")) for field in (_TRAINER, _NORMALIZER))
        found = SentencePieceModel(
            tokens=tuple(_bytes(piece, _PIECE).decode() for piece in pieces),
            kinds=tuple(_number(piece, _TYPE, TokenKind.NORMAL) for piece in pieces),
            ranks=tuple(struct.unpack("<f", _bytes(piece, _SCORE, bytes(4)))[0] for piece in pieces),
            unknown_id=_number(trainer, _UNKNOWN_ID, 0),
            begin_id=_number(trainer, _BEGIN_ID, 1),
            end_id=_number(trainer, _END_ID, 2),
        )
    except (ValueError, IndexError, KeyError, struct.error) as error:
        raise ModelUnsupported(f"{path} is damaged, or no SentencePiece model") from error
    if not found.tokens or len(set(found.tokens)) < len(found.tokens):
        raise ModelUnsupported(f"{path} is damaged: it lists no tokens, or one twice")
    has_rules = (
        _number(trainer, _MODEL_TYPE, 1) == _BPE
        and _number(trainer, _BYTE_FALLBACK, 0)
        and not _bytes(normalizer, _CHARACTER_MAP)
        and _number(normalizer, _ADDS_PREFIX, 1)
        and not _number(normalizer, _REMOVES_SPACES, 1)
        and _number(normalizer, _ESCAPES_SPACES, 1)
    )
    if not has_rules:
        raise ModelUnsupported(
            f"{path} splits text by other rules than Llama's and Mistral's: save it as tokenizer.json "
            "(`AutoTokenizer.from_pretrained(...).save_pretrained(...)` of transformers, with sentencepiece and "
            "protobuf installed)"
        )
    return found


_Value = int | bytes


def _fields_of(message: bytes) -> list[tuple[int, _Value]]:
    """Numbers and values of a message's fields; ValueError or IndexError where it is cut off."""
    fields: list[tuple[int, _Value]] = []
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        kind = key & 7
        if kind == 0:
            value, position = _varint(message, position)
            fields.append((key >> 3, value))
            continue
        if kind == 2:
            length, position = _varint(message, position)
        else:
            length = _FIXED_BYTES[kind]
        if position + length > len(message):
            raise ValueError("a field is cut off")
        fields.append((key >> 3, message[position : position + length]))
        position += length
    return fields


def _varint(message: bytes, position: int) -> tuple[int, int]:
    """A number of variable length, and where the next field begins."""
    value = shift = 0
    while shift < 64:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("a number is too long")


def _messages(fields: list[tuple[int, _Value]], number: int) -> Iterator[bytes]:
    return (value for field, value in fields if field == number and isinstance(value, bytes))


def _single(message: bytes) -> dict[int, _Value]:
    """The last value of each field."""
    return dict(_fields_of(message))


def _number(fields: dict[int, _Value], number: int, default: int) -> int:
    value = fields.get(number, default)
    if not isinstance(value, int):
        raise ValueError(f"field {number} is no number")
    return value


def _bytes(fields: dict[int, _Value], number: int, default: bytes = b"") -> bytes:
    value = fields.get(number, default)
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} is no string")
    return value
