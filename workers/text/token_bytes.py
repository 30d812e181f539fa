"""The bytes of single tokens, whole characters or not: what log probabilities show of each."""

from itertools import chain

from tokenizers import Tokenizer

from workers.text.vocabulary import BYTE_TOKEN, has_decoder, spoken_ids

_REPLACEMENT = "\ufffd"


class TokenBytes:
    """What each token of a vocabulary adds to a text: joined, the bytes of ids are the bytes of their text.

    Exact for byte-level BPE, byte fallback and word pieces, whose decoders look at a token alone, and at whether it
    is the text's first (which may lose the space before it).
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._spoken = spoken_ids(tokenizer)
        self._is_byte_level = has_decoder(tokenizer, "ByteLevel")
        self._is_byte_fallback = has_decoder(tokenizer, "ByteFallback")
        self._first: dict[int, bytes] = {}
        self._later: dict[int, bytes] = {}
        self._anchor, self._anchor_text = self._find_anchor()

    def is_spoken(self, token_id: int) -> bool:
        """Whether the token has text of its own."""
        return token_id in self._spoken

    def of(self, token_id: int, *, is_first: bool = False) -> bytes:
        """The token's bytes; none for a special token or an unknown id.

        is_first: whether no spoken token stands before it in its text
        """
        known = self._first if is_first else self._later
        data = known.get(token_id)
        if data is None:
            data = known[token_id] = self._read(token_id, is_first=is_first) if token_id in self._spoken else b""
        return data

    def _read(self, token_id: int, *, is_first: bool) -> bytes:
        if is_first or self._anchor is None:
            text = self._tokenizer.decode([token_id])
        else:
            whole = self._tokenizer.decode([self._anchor, token_id])
            text = whole.removeprefix(self._anchor_text)
        if _REPLACEMENT not in text:
            return text.encode()
        raw = self._raw(self._tokenizer.id_to_token(token_id) or "")
        return text.encode() if raw is None else raw

    def _raw(self, token: str) -> bytes | None:
        """Bytes that the vocabulary spells out, by which a decoder alone would show no character."""
        if self._is_byte_level and all(sign in _BYTE_BY_SIGN for sign in token):
            return bytes(_BYTE_BY_SIGN[sign] for sign in token)
        if self._is_byte_fallback and (byte := BYTE_TOKEN.fullmatch(token)):
            return bytes([int(byte[1], 16)])
        return None

    def _find_anchor(self) -> tuple[int | None, str]:
        """A token that stands before others without touching them, and its text where it begins one."""
        for token_id in range(self._tokenizer.get_vocab_size()):
            token = self._tokenizer.id_to_token(token_id)
            if token is None or token_id not in self._spoken or BYTE_TOKEN.fullmatch(token):
                continue
            text = self._tokenizer.decode([token_id])
            if text.isalnum() and self._tokenizer.decode([token_id, token_id]).startswith(text):
                return token_id, text
        return None, ""


def _signs() -> dict[str, int]:
    """The sign by which byte-level vocabularies write each byte: itself where that is visible, else one from 256 on.

    Source: `bytes_to_unicode` of GPT-2, https://github.com/openai/gpt-2/blob/master/src/encoder.py
    """
    visible = set(chain(range(ord("!"), ord("~") + 1), range(ord("¡"), ord("¬") + 1), range(ord("®"), ord("ÿ") + 1)))
    hidden = (byte for byte in range(256) if byte not in visible)
    return {chr(byte): byte for byte in visible} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


_BYTE_BY_SIGN = _signs()
