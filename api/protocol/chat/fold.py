"""The stream of Chat Completions: chunks of text, reasoning and tool calls."""

from typing import assert_never

from api.protocol.answer.chunk_fold import ChunkFold
from api.protocol.answer.completion_parts import SYSTEM_FINGERPRINT
from api.protocol.answer.items import Item, ItemChange, ItemCompleted, ItemDelta, ItemKind, ItemOpened
from api.protocol.answer.outcome import ChoiceAnswer
from api.protocol.chat.object import (
    call_object,
    chat_finish_reason,
    chat_logprobs,
    num_chat_choices,
    shows_thoughts,
    wants_logprobs,
)
from api.protocol.families.stored_parser import parser_of
from api.protocol.shared.tiers import tier_of
from storage.contract import JobHeader, TokenEvent


class ChatFold(ChunkFold):
    """Chunks of Chat Completions."""

    def __init__(self, header: JobHeader) -> None:
        wanted = wants_logprobs(header)
        self._shows_thoughts = shows_thoughts(header)
        super().__init__(header, num_chat_choices(header), wants_logprobs=wanted, parser=parser_of(header))

    def envelope(self) -> dict[str, object]:
        return {
            "id": self._header.job_id,
            "object": "chat.completion.chunk",
            "created": self._header.created_at,
            "model": self._header.model,
            "service_tier": tier_of(self._header.request),
            "system_fingerprint": SYSTEM_FINGERPRINT,
        }

    def first_choice(self, choice: int) -> dict[str, object] | None:
        return _delta(choice, {"role": "assistant", "content": ""}, None)

    def text_choice(self, choice: int, text: str) -> dict[str, object]:
        return _delta(choice, {"content": text}, None)

    def measured_choice(self, event: TokenEvent) -> dict[str, object] | None:
        return self._measured_text(event.choice, event.text, (event,))

    def _measured_text(self, choice: int, text: str, events: tuple[TokenEvent, ...]) -> dict[str, object] | None:
        logprobs = chat_logprobs(self._header, events)
        if not text and not logprobs["content"]:
            return None
        return {**self.text_choice(choice, text), "logprobs": logprobs if logprobs["content"] else None}

    def changed_choice(self, choice: int, change: ItemChange) -> dict[str, object] | None:
        match change:
            case ItemOpened(item):
                if item.kind is not ItemKind.CALL:
                    return None
                # The SDK joins the texts of all deltas, so id and name stand only in the first.
                return _delta(choice, {"tool_calls": [{"index": item.number, **self._opened_call(choice, item)}]}, None)
            case ItemDelta(item, text, measured):
                return self._changed_text(choice, item, text, measured)
            case ItemCompleted():
                return None
            case _:
                assert_never(change)

    def _opened_call(self, choice: int, item: Item) -> dict[str, object]:
        return call_object(
            self._header, choice, Item(item.kind, number=item.number, name=item.name, is_custom=item.is_custom)
        )

    def _changed_text(
        self, choice: int, item: Item, text: str, measured: tuple[TokenEvent, ...]
    ) -> dict[str, object] | None:
        match item.kind:
            case ItemKind.TEXT:
                return self._measured_text(choice, text, measured if self._wants_logprobs else ())
            case ItemKind.REASONING:
                is_shown = text and self._shows_thoughts
                return _delta(choice, {"reasoning_content": text}, None) if is_shown else None
            case ItemKind.CALL:
                if not text:
                    return None
                added = {"custom": {"input": text}} if item.is_custom else {"function": {"arguments": text}}
                return _delta(choice, {"tool_calls": [{"index": item.number, **added}]}, None)
            case _:
                assert_never(item.kind)

    def last_choice(self, choice: int, finish: str | None) -> dict[str, object]:
        return _delta(choice, {}, finish)

    def finish_reason(self, choice: ChoiceAnswer) -> str | None:
        return chat_finish_reason(self._outcome, choice)


def _delta(choice: int, delta: dict[str, object], finish: str | None) -> dict[str, object]:
    return {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}
