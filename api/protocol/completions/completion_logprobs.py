"""Log probabilities of Completions: four parallel lists, which begin with those of an echoed prompt.

Source: OpenAI specification of 2026-08-21, `logprobs` of a completion choice.
"""

from codecs import getincrementaldecoder
from collections.abc import Iterable, Sequence
from typing import cast

from api.protocol.answer.logprobs import content_of, text_of
from storage.contract import JobHeader, TokenEvent, TokenLogprobs

_decoder = getincrementaldecoder("utf-8")


class CompletionLogprobs:
    """Formats the log probabilities and text offsets of one choice's events, given once each and in order.

    Offsets count characters; all tokens of one character have its offset. The first token of an echoed prompt has no
    log probability, because nothing precedes it.
    """

    def __init__(self, header: JobHeader, prompt: int, echo: str) -> None:
        """prompt: index of the choice's prompt
        echo:   the prompt's text if the choice's text begins with it, else ""
        """
        self._header = header
        names = cast(list[list[tuple[int, str]]], header.context.get("prompt_names", []))
        self._names = dict(names[prompt]) if names else {}
        self._awaits_head = self._awaits_prompt = bool(names)
        self._echo = echo
        self._decoder = _decoder("replace")
        self._offset = 0 if names else len(echo)

    def push(self, events: Iterable[TokenEvent]) -> dict[str, object]:
        """The four lists of the events' tokens, which may be empty."""
        lists = _Lists()
        for event in events:
            if self._awaits_head:
                lists.add_first(self._names[0])
                self._awaits_head = False
            if event.logprobs is not None:
                if self._awaits_prompt:
                    self._add_prompt(lists, event.logprobs.prompt)
                for token in content_of(event, self._header):
                    lists.add(token, token.chosen.data, self._advance(token.chosen.data))
        return lists.as_json()

    def _add_prompt(self, lists: "_Lists", tokens: Sequence[TokenLogprobs]) -> None:
        texts = [
            self._names[position].encode() if position in self._names else token.chosen.data
            for position, token in enumerate(tokens, start=1)
        ]
        echo = self._echo.encode()
        # The first token is what the others leave of the text: nothing if the tokenizer added a special token.
        self._advance(echo[: max(0, len(echo) - sum(map(len, texts)))])
        for token, data in zip(tokens, texts, strict=True):
            lists.add(token, data, self._advance(data))
        self._awaits_prompt = False
        self._decoder.reset()
        self._offset = len(self._echo)

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

    def add(self, token: TokenLogprobs, data: bytes, offset: int) -> None:
        self.tokens.append(text_of(data))
        self.logprobs.append(token.chosen.logprob)
        self.top.append(_top_of(token, data))
        self.offsets.append(offset)

    def as_json(self) -> dict[str, object]:
        return {
            "tokens": self.tokens,
            "token_logprobs": self.logprobs,
            "top_logprobs": self.top,
            "text_offset": self.offsets,
        }


def _top_of(token: TokenLogprobs, data: bytes) -> dict[str, float]:
    """The most likely tokens and the chosen one. Of tokens with the same text, the most likely one counts."""
    top: dict[str, float] = {}
    for candidate in token.top:
        is_chosen = candidate.token_id == token.chosen.token_id
        top.setdefault(text_of(data if is_chosen else candidate.data), candidate.logprob)
    top.setdefault(text_of(data), token.chosen.logprob)
    return top
