"""Token ids to text, piece by piece, never half a character."""

from collections.abc import Callable, Container, Sequence

# The sign that decoders write for bytes that are no character, or not yet.
REPLACEMENT = "\ufffd"
# Ids after which a window that still waits for a whole character is looked at for a place to cut it.
_LONG_WINDOW = 24
# A character has at most 4 bytes, so 4 tokens settle how what lies before them is read.
_SETTLED = 4

# Ids of the prompt at most that are looked at for a whole character.
_MAX_CONTEXT = 8

Decode = Callable[[list[int]], str]


class Detokenizer:
    """Text of a growing list of ids; the pieces together equal the text of the whole list.

    Only a short window of ids is decoded again for each new one: the ids of the last piece, which decoders need
    for spaces between words, and those that are not shown yet. So the cost is linear.

    Decoders that join bytes (byte-level BPE) show each character as soon as it is whole. Those that fall back to byte
    tokens show a run of bytes that is invalid anywhere as invalid everywhere, so such a run is shown when it is over.
    """

    def __init__(
        self, decode: Decode, spoken: Container[int], fallback: Container[int] = (), prompt: Sequence[int] = ()
    ) -> None:
        """What a text is read from.

        fallback: ids of tokens that are one byte each, of a decoder that reads runs of them
        prompt:   ids before the text; if the last one has text, it is the left context of the first piece
        """
        self._decode = decode
        self._spoken = spoken
        self._fallback = fallback
        self._window: list[int] = []
        self._num_context = 0
        self._num_shown = 0
        self._limit = _LONG_WINDOW
        self._continue(prompt)

    def _continue(self, prompt: Sequence[int]) -> None:
        """Begin with the prompt's last ids: SentencePiece-like decoders drop the space before the first token of a
        text, which is not the first token of the answer. After a special token (a turn of a chat) the text begins anew.
        """
        for length in range(1, min(len(prompt), _MAX_CONTEXT) + 1):
            window = list(prompt[-length:])
            if window[0] not in self._spoken:
                return
            text = self._decode(window)
            # Half a character at either end would be decoded differently with more tokens.
            if REPLACEMENT not in text:
                self._window, self._num_context, self._num_shown = window, length, len(text)
                return

    def push(self, token_id: int) -> str:
        """Text that became certain with this id; ids without text of their own (special ones) give ""."""
        if token_id not in self._spoken:
            return ""
        self._window.append(token_id)
        if token_id in self._fallback:
            return ""
        text = self._decode(self._window)
        certain = text.rstrip(REPLACEMENT)
        piece = certain[self._num_shown :]
        if piece and len(certain) == len(text):
            self._forget(self._num_context)
            self._num_context = len(self._window)
            self._num_shown = len(self._decode(self._window))
            return piece
        self._num_shown += len(piece)
        return piece + self._shorten(text) if len(self._window) >= self._limit else piece

    def restart(self) -> str:
        """The rest, as at the end; the text of the next id begins anew."""
        rest = self.close()
        self._forget(len(self._window))
        self._num_context = self._num_shown = 0
        return rest

    def close(self) -> str:
        """The rest, with replacement signs for characters that were never completed."""
        return self._decode(self._window)[self._num_shown :] if self._window else ""

    def _shorten(self, text: str) -> str:
        """Show and forget the settled part of a long window, so that endless invalid bytes cost no more than text."""
        end = len(self._window) - _SETTLED
        for num_ids in range(end, end - _SETTLED, -1):
            head = self._decode(self._window[:num_ids])
            if head + self._decode(self._window[num_ids:]) == text:
                piece = head[self._num_shown :]
                self._forget(num_ids)
                self._num_context = max(0, self._num_context - num_ids)
                self._num_shown = max(0, self._num_shown - len(head))
                return piece
        self._limit = len(self._window) + _LONG_WINDOW
        return ""

    def _forget(self, num_ids: int) -> None:
        del self._window[:num_ids]
        self._limit = _LONG_WINDOW
