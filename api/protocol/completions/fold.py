"""The stream of Completions: chunks of text."""

from api.protocol.answer.chunk_fold import ChunkFold
from api.protocol.answer.completion_parts import SYSTEM_FINGERPRINT, asked_tier
from api.protocol.completions.object import echo_of, logprobs_of, num_completion_choices, wants_logprobs
from storage.contract import JobHeader, TokenEvent


class CompletionFold(ChunkFold):
    """Chunks of Completions."""

    def __init__(self, header: JobHeader) -> None:
        super().__init__(header, num_completion_choices(header), wants_logprobs=wants_logprobs(header))
        choices = range(num_completion_choices(header)) if self._wants_logprobs else range(0)
        self._logprobs = [logprobs_of(header, choice) for choice in choices]
        # Echoes that wait for their choice's first event.
        self._echoes = {choice: echo_of(header, choice) for choice in choices}

    def envelope(self) -> dict[str, object]:
        return {
            "id": self._header.job_id,
            "object": "text_completion",
            "created": self._header.created_at,
            "model": self._header.model,
            **asked_tier(self._header),
            "system_fingerprint": SYSTEM_FINGERPRINT,
        }

    def first_choice(self, choice: int) -> dict[str, object] | None:
        echo = "" if self._wants_logprobs else echo_of(self._header, choice)
        return self.text_choice(choice, echo) if echo else None

    def text_choice(self, choice: int, text: str) -> dict[str, object]:
        return {"text": text, "index": choice, "logprobs": None, "finish_reason": None}

    def measured_choice(self, event: TokenEvent) -> dict[str, object] | None:
        text = self._echoes.pop(event.choice, "") + event.text
        logprobs = self._logprobs[event.choice].push([event])
        if not text and not logprobs["tokens"]:
            return None
        return {**self.text_choice(event.choice, text), "logprobs": logprobs if logprobs["tokens"] else None}

    def last_choice(self, choice: int, finish: str | None) -> dict[str, object]:
        return {"text": "", "index": choice, "logprobs": None, "finish_reason": finish}
