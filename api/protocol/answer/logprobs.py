"""Log probabilities: which tokens they cover, and the objects of Chat and Responses.

An event's log probabilities are sent with its text, or with an empty text if that is held back. So those of each token
are sent once and in order, live and in a replay. See docs/decisions/0009-reported-log-probabilities.md.
"""

from collections.abc import Iterable
from typing import cast

from storage.contract import Candidate, FinishReason, JobHeader, TokenEvent, TokenLogprobs


def content_of(event: TokenEvent, header: JobHeader) -> tuple[TokenLogprobs, ...]:
    """The content tokens of the event: all but an end-of-sequence id or stop token id that ended the choice."""
    tokens = () if event.logprobs is None else event.logprobs.tokens
    if event.finish is not FinishReason.STOP or not tokens:
        return tokens
    last = tokens[-1].chosen
    is_end = not last.data or last.token_id in cast(list[int], header.request.get("stop_token_ids", []))
    return tokens[:-1] if is_end else tokens


def token_objects(events: Iterable[TokenEvent], header: JobHeader) -> list[dict[str, object]]:
    """The log probability objects of Chat and Responses for the content tokens of one choice's events."""
    return [
        {**_object_of(token.chosen), "top_logprobs": list(map(_object_of, token.top))}
        for event in events
        for token in content_of(event, header)
    ]


def _object_of(candidate: Candidate) -> dict[str, object]:
    return {"token": text_of(candidate.data), "logprob": candidate.logprob, "bytes": list(candidate.data)}


def text_of(data: bytes) -> str:
    """A token's bytes as text; incomplete characters become U+FFFD."""
    return data.decode("utf-8", "replace")
