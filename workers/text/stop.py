"""Stop strings: where text ends, and what may not be shown yet because a stop string may have begun in it."""

from storage.spans import overlap


class StopFilter:
    """Lets text through up to the first stop string.

    A tail that could be the beginning of a stop string is held back until more text decides. How the text is cut
    into pieces makes no difference to what comes through.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self.is_stopped = False
        self._stop = tuple(string for string in stop if string)
        self._held = ""

    @property
    def is_active(self) -> bool:
        """Whether there is any stop string."""
        return bool(self._stop)

    def push(self, text: str, *, may_stop: bool = True) -> str:
        """Text that is certainly before any stop string.

        may_stop: whether a stop string that ends in this text counts; it may have begun in earlier text that did not
        """
        if not self._stop or self.is_stopped:
            return "" if self.is_stopped else text
        num_held = len(self._held)
        text = self._held + text
        if may_stop:
            # The one that is complete first, however the text is cut; of two that end together the longer.
            starts = ((string, text.find(string, max(0, num_held - len(string) + 1))) for string in self._stop)
            ends = [(start + len(string), start) for string, start in starts if start >= 0]
            if ends:
                self.is_stopped = True
                self._held = ""
                return text[: min(ends)[1]]
        cut = len(text) - self._num_doubtful(text)
        self._held = text[cut:]
        return text[:cut]

    def close(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held

    def _num_doubtful(self, text: str) -> int:
        """Length of the longest end of `text` with which a stop string begins."""
        return max(overlap(text, string) for string in self._stop)
