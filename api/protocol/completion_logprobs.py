"""Log probabilities as Completions tell them: four parallel lists, those of an echoed prompt first.

Source: OpenAI specification of 2026-08-21, `logprobs` of a completion choice.
"""

from codecs import getincrementaldecoder
from collections.abc import Iterable, Sequence
from typing import cast

from api.protocol.logprobs import content_of, spelled
from storage.contract import JobHeader, TokenEvent, TokenLogprobs

_decoder = getincrementaldecoder("utf-8")


class CompletionLogprobs:
    """Tells one choice's events, fed once each and in order, and where in the choice's text each token begins.

    Offsets count characters; the tokens of one character all begin where it does. The first token of an echoed prompt
    has no log probability, as nothing comes before it.
    """

    def __init__(self, header: JobHeader, prompt: int, echo: str) -> None:
        """prompt: the choice's prompt, by index
        echo:   its text where that stands before the choice's own
        """
        self._header = header
        heads = cast(list[str], header.context.get("prompt_heads", []))
        self._head = heads[prompt] if heads else None
        self._awaits_prompt = bool(heads)
        self._echo = echo
        self._decoder = _decoder("replace")
        self._offset = 0 if heads else len(echo)

    def tell(self, events: Iterable[TokenEvent]) -> dict[str, object]:
        """The four lists of the events' tokens, which may be empty."""
        lists = _Lists()
        for event in events:
            if self._head is not None:
                self._tell_head(lists, self._head)
            if event.logprobs is not None:
                self._tell_tokens(lists, event, event.logprobs.prompt)
        return lists.as_json()

    def _tell_head(self, lists: "_Lists", head: str) -> None:
        lists.add_first(head)
        # A special token with which the tokenizer begins is not part of the text.
        self._offset = len(head) if self._echo.startswith(head) else 0
        self._head = None

    def _tell_tokens(self, lists: "_Lists", event: TokenEvent, prompt: Sequence[TokenLogprobs]) -> None:
        if self._awaits_prompt:
            for token in prompt:
                lists.add(token, self._advance(token.chosen.data))
            self._awaits_prompt = False
            self._decoder.reset()
            self._offset = len(self._echo)
        for token in content_of(event, self._header):
            lists.add(token, self._advance(token.chosen.data))

    def _advance(self, data: bytes) -> int:
        offset = self._offset
        self._offset += len(self._decoder.decode(data))
        return offset


class _Lists:
    def __init__(self) -> None:
        self.tokens: list[str] = []
        self.logprobs: list[float | None] = []
        self.top: list[dict[str, float] | None] = []
        self.offsets: list[int] = []

    def add_first(self, text: str) -> None:
        self.tokens.append(text)
        self.logprobs.append(None)
        self.top.append(None)
        self.offsets.append(0)

    def add(self, token: TokenLogprobs, offset: int) -> None:
        self.tokens.append(spelled(token.chosen))
        self.logprobs.append(token.chosen.logprob)
        self.top.append(_top_of(token))
        self.offsets.append(offset)

    def as_json(self) -> dict[str, object]:
        return {
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        }


def _top_of(token: TokenLogprobs) -> dict[str, float]:
    """The likeliest and the token itself, as OpenAI has it; of tokens that read the same, the likeliest."""
    top: dict[str, float] = {}
    for candidate in (*token.top, token.chosen):
        top.setdefault(spelled(candidate), candidate.logprob)
    return top
