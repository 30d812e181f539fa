"""The text of one sequence as it grows: detokenizer and stop strings in one."""

from collections.abc import Container, Sequence

from tokenizers import Tokenizer

from workers.text.detokenizer import Decode, Detokenizer
from workers.text.stop import StopFilter
from workers.text.vocabulary import fallback_ids, spoken_ids


class TextStream:
    """Text of one sequence. It depends on the ids alone, so a stream fed with emitted ids goes on where it was.

    min_tokens: ids in whose text no stop string counts
    """

    def __init__(self, detokenizer: Detokenizer, stop: StopFilter, min_tokens: int = 0) -> None:
        self._detokenizer = detokenizer
        self._stop = stop
        self._num_deaf = min_tokens

    @property
    def is_stopped(self) -> bool:
        """Whether a stop string was found; nothing follows then."""
        return self._stop.is_stopped

    def push(self, token_id: int) -> str:
        """Text that became certain with this id."""
        if self._num_deaf:
            self._num_deaf -= 1
            return self._stop.push(self._detokenizer.push(token_id), may_stop=False)
        return self._stop.push(self._detokenizer.push(token_id))

    def close(self) -> str:
        """Text that was held back, now that no id follows."""
        if self.is_stopped:
            return ""
        return self._stop.push(self._detokenizer.close(), may_stop=not self._num_deaf) + self._stop.close()


class TextFactory:
    """Makes the text streams of one model.

    decode:   text of ids, special tokens left out
    spoken:   ids that have text of their own
    fallback: ids of tokens that are one byte each, see `Detokenizer`
    """

    def __init__(self, decode: Decode, spoken: Container[int], fallback: Container[int] = ()) -> None:
        self._decode = decode
        self._spoken = spoken
        self._fallback = fallback

    def open(self, stop: tuple[str, ...], min_tokens: int = 0, prompt: Sequence[int] = ()) -> TextStream:
        """A fresh stream that ends at any of the stop strings once the text of so many ids is out.

        prompt: ids before the text, which goes on from their text
        """
        return TextStream(Detokenizer(self._decode, self._spoken, self._fallback, prompt), StopFilter(stop), min_tokens)


def factory_of(tokenizer: Tokenizer) -> TextFactory:
    """Text streams as the tokenizer decodes: without special tokens, and without ids it does not know."""
    return TextFactory(tokenizer.decode, spoken_ids(tokenizer), fallback_ids(tokenizer))
