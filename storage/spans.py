"""Parts of an output between two markers, found in text that comes piece by piece, and the tokens of its thoughts."""

from collections.abc import Collection, Sequence

from storage.contract import JobSpec, ThinkingLimits, TokenEvent


class SpanScanner:
    """Splits text into parts inside and outside of spans; markers are inside.

    What may be the beginning of a marker is held back, so how the text is cut into pieces makes no difference. Of
    markers that overlap the one counts that is complete first.
    """

    def __init__(self, spans: Sequence[tuple[str, str]], inside: str = "") -> None:
        """spans: openings and closings; inside: the closing of the span in which the text begins, "" outside"""
        self._closing_by_opening = dict(reversed(spans))
        self._closing = inside
        self._held = ""

    @property
    def is_inside(self) -> bool:
        """Whether the text so far ends inside a span."""
        return bool(self._closing)

    @property
    def is_doubtful(self) -> bool:
        """Whether the text so far may end within a marker."""
        return bool(self._held)

    def push(self, text: str) -> list[tuple[str, bool]]:
        """Parts that became certain, and whether each is inside a span."""
        parts = []
        text, self._held = self._held + text, ""
        while text:
            markers = [self._closing] if self._closing else list(self._closing_by_opening)
            found = [(start + len(marker), start, marker) for marker in markers if (start := text.find(marker)) >= 0]
            if not found:
                cut = len(text) - max((overlap(text, marker) for marker in markers), default=0)
                parts.append((text[:cut], self.is_inside))
                self._held = text[cut:]
                break
            end, start, marker = min(found)
            if self._closing:
                parts.append((text[:end], True))
                self._closing = ""
            else:
                parts += (text[:start], False), (marker, True)
                self._closing = self._closing_by_opening[marker]
            text = text[end:]
        return [part for part in parts if part[0]]

    def close(self) -> list[tuple[str, bool]]:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return [(held, self.is_inside)] if held else []


class ThoughtMeter:
    """Counts the tokens of thoughts as an output grows.

    num_tokens:     of all thoughts, their markers included
    num_in_thought: of the thought that is open, without its markers
    """

    def __init__(self, thinking: ThinkingLimits) -> None:
        self.num_tokens = self.num_in_thought = 0
        self._num_doubtful = 0
        self._scanner = SpanScanner(
            [(thinking.opening, thinking.closing)], thinking.closing if thinking.is_open else ""
        )

    @property
    def is_open(self) -> bool:
        """Whether the output so far ends inside a thought."""
        return self._scanner.is_inside

    def push(self, text: str, num_tokens: int) -> None:
        """Count tokens that bring this text. Either all of them belong to a thought or none."""
        was_open = self.is_open
        parts = self._scanner.push(text)
        self.num_in_thought = self.num_in_thought + num_tokens if was_open and self.is_open else 0
        if was_open or self.is_open or any(is_inside for _, is_inside in parts):
            # Those in which its opening marker began as well.
            self.num_tokens += self._num_doubtful + num_tokens
            self._num_doubtful = 0
        else:
            self._num_doubtful = self._num_doubtful + num_tokens if self._scanner.is_doubtful else 0


def reasoning_tokens(spec: JobSpec, entries: Collection[tuple[TokenEvent, ...]]) -> int:
    """Tokens of thoughts in a job's log, their markers included."""
    thinking = None if spec.output is None else spec.output.thinking
    if thinking is None:
        return 0
    meter_by_choice: dict[int, ThoughtMeter] = {}
    for entry in entries:
        for event in entry:
            meter = meter_by_choice.setdefault(event.choice, ThoughtMeter(thinking))
            meter.push(event.text, len(event.token_ids))
    return sum(meter.num_tokens for meter in meter_by_choice.values())


def overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` with which the marker begins, and which is not all of it."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0
