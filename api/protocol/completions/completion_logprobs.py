"""Log probabilities as Completions tell them: four parallel lists, those of an echoed prompt first.

Source: OpenAI specification of 2026-08-21, `logprobs` of a completion choice.
"""

from codecs import getincrementaldecoder
from collections.abc import Iterable, Sequence
from typing import cast

from api.protocol.shared.logprobs import content_of, text_of
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
        names = cast(list[list[tuple[int, str]]], header.context.get("prompt_names", []))
        self._names = dict(names[prompt]) if names else {}
        self._awaits_head = self._awaits_prompt = bool(names)
        self._echo = echo
        self._decoder = _decoder("replace")
        self._offset = 0 if names else len(echo)

    def tell(self, events: Iterable[TokenEvent]) -> dict[str, object]:
        """The four lists of the events' tokens, which may be empty."""
        lists = _Lists()
        for event in events:
            if self._awaits_head:
                lists.add_first(self._names[0])
                self._awaits_head = False
            if event.logprobs is not None:
                if self._awaits_prompt:
                    self._tell_prompt(lists, event.logprobs.prompt)
                for token in content_of(event, self._header):
                    lists.add(token, token.chosen.data, self._advance(token.chosen.data))
        return lists.as_json()

    def _tell_prompt(self, lists: "_Lists", tokens: Sequence[TokenLogprobs]) -> None:
        spelled = [
            self._names[position].encode() if position in self._names else token.chosen.data
            for position, token in enumerate(tokens, start=1)
        ]
        echo = self._echo.encode()
        # The first token is what the others leave: nothing, where the tokenizer begins with a special one by itself.
        self._advance(echo[: max(0, len(echo) - sum(map(len, spelled)))])
        for token, data in zip(tokens, spelled, strict=True):
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
    """The likeliest and the token itself, as OpenAI has it; of tokens that read the same, the likeliest."""
    top: dict[str, float] = {}
    for candidate in token.top:
        is_chosen = candidate.token_id == token.chosen.token_id
        top.setdefault(text_of(data if is_chosen else candidate.data), candidate.logprob)
    top.setdefault(text_of(data), token.chosen.logprob)
    return top
