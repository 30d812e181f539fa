"""The text of one sequence as it grows: detokenizer and stop strings in one."""

from collections.abc import Callable, Container, Mapping, Sequence

from tokenizers import Tokenizer

from storage.contract import MARKER_SIGN, OutputFormat
from storage.spans import SpanScanner, ThoughtMeter
from workers.text.detokenizer import REPLACEMENT, Decode, Detokenizer
from workers.text.stop import StopFilter
from workers.text.vocabulary import fallback_ids, spoken_ids


class TextStream:
    """Text of one sequence. It depends on the ids alone, so a stream fed with emitted ids goes on where it was.

    min_tokens:         ids in whose text no stop string counts
    thoughts:           of an output that has some
    text_by_marker_id:  ids whose text begins with MARKER_SIGN
    """

    thoughts: ThoughtMeter | None = None
    text_by_marker_id: Mapping[int, str] = {}

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


class FormattedStream(TextStream):
    """Text of an output with a format: markers have their sign, and stop strings count outside of spans only."""

    def __init__(
        self,
        detokenizer: Detokenizer,
        stop: StopFilter,
        min_tokens: int,
        output: OutputFormat,
        text_by_marker_id: Mapping[int, str],
    ) -> None:
        super().__init__(detokenizer, stop, min_tokens)
        self.text_by_marker_id = text_by_marker_id
        thinking, spans = output.thinking, output.spans
        if thinking is not None:
            self.thoughts = ThoughtMeter(thinking)
            spans = (*spans, (thinking.opening, thinking.closing))
        self._scanner = SpanScanner(spans, thinking.closing if thinking is not None and thinking.is_open else "")

    def push(self, token_id: int) -> str:
        """As `TextStream.push`."""
        marker = self.text_by_marker_id.get(token_id)
        if marker is None:
            text = _without_signs(self._detokenizer.push(token_id))
        else:
            text = _without_signs(self._detokenizer.restart()) + MARKER_SIGN + marker
        if self.thoughts is not None:
            self.thoughts.push(text, 1)
        may_stop = not self._num_deaf
        self._num_deaf -= not may_stop
        return self._filtered(self._scanner.push(text), may_stop=may_stop) if self._stop.is_active else text

    def close(self) -> str:
        """As `TextStream.close`."""
        if self.is_stopped:
            return ""
        parts = self._scanner.push(_without_signs(self._detokenizer.close())) + self._scanner.close()
        return self._filtered(parts, may_stop=not self._num_deaf) + self._stop.close()

    def _filtered(self, parts: Sequence[tuple[str, bool]], *, may_stop: bool) -> str:
        text = ""
        for part, is_inside in parts:
            # A stop string that began before a span does not go on behind it.
            text += self._stop.close() + part if is_inside else self._stop.push(part, may_stop=may_stop)
            if self.is_stopped:
                break
        return text


def _without_signs(text: str) -> str:
    return text.replace(MARKER_SIGN, REPLACEMENT)


class TextFactory:
    """Makes the text streams of one model.

    decode:   text of ids, special tokens left out
    spoken:   ids that have text of their own
    fallback: ids of tokens that are one byte each, see `Detokenizer`
    token_of: the text of a single token, also of a special one; None for an unknown id
    """

    def __init__(
        self,
        decode: Decode,
        spoken: Container[int],
        fallback: Container[int] = (),
        token_of: Callable[[int], str | None] = lambda token_id: None,
    ) -> None:
        self._decode = decode
        self._spoken = spoken
        self._fallback = fallback
        self._token_of = token_of

    def open(
        self,
        stop: tuple[str, ...],
        min_tokens: int = 0,
        prompt: Sequence[int] = (),
        output: OutputFormat | None = None,
    ) -> TextStream:
        """A fresh stream that ends at any of the stop strings once the text of so many ids is out.

        prompt: ids before the text, which goes on from their text
        """
        detokenizer = Detokenizer(self._decode, self._spoken, self._fallback, prompt)
        if output is None:
            return TextStream(detokenizer, StopFilter(stop), min_tokens)
        text_by_marker_id = {token_id: self._token_of(token_id) or "" for token_id in output.marker_ids}
        return FormattedStream(detokenizer, StopFilter(stop), min_tokens, output, text_by_marker_id)


def factory_of(tokenizer: Tokenizer) -> TextFactory:
    """Text streams as the tokenizer decodes: without special tokens, and without ids it does not know."""
    return TextFactory(tokenizer.decode, spoken_ids(tokenizer), fallback_ids(tokenizer), tokenizer.id_to_token)
