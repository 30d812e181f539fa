"""A byte tokenizer, templates of common shape, and logs to fold."""

import json
from collections.abc import Iterable
from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from api.protocol.prompt.tokenizing import PromptTools
from storage.contract import (
    Candidate,
    End,
    EntryKind,
    EventLogprobs,
    FinishReason,
    JobHeader,
    JobKind,
    JobStatus,
    LogEntry,
    TokenEvent,
    TokenLogprobs,
    Usage,
)
from storage.model_manifest import ModelManifest

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim + '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start|>assistant<|end|>\n\n' }}
{%- endif %}
"""
GEMMA = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
CREATED_AT = 1_700_000_000
ENDED_AT = 1_700_000_009
USAGE = Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=2, reasoning_tokens=1)
SUFFIX = "0" * 31 + "1"
# Those that generate text.
GENERATION_KINDS = (JobKind.RESPONSE, JobKind.CHAT, JobKind.COMPLETION)
JOB_IDS = {
    JobKind.RESPONSE: f"resp_{SUFFIX}",
    JobKind.CHAT: f"chatcmpl-{SUFFIX}",
    JobKind.COMPLETION: f"cmpl-{SUFFIX}",
}


def tokenizer_json() -> str:
    """A tokenizer of bytes: one token each, and a few special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={symbol: index for index, symbol in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text) for text in ("<s>", "<|im_start|>", "<|im_end|>")])
    return str(tokenizer.to_str())


def manifest(template: str | None = CHATML, context_length: int = 1000, bos: bool = True) -> ModelManifest:
    """A model manifest."""
    return ModelManifest(
        model="demo",
        context_length=context_length,
        tokenizer_json=tokenizer_json(),
        chat_template=template,
        special_tokens={"bos_token": "<s>"} if bos else {},
        capabilities={"chat": template is not None, "completion": True},
    )


@cache
def tools(template: str | None = CHATML, context_length: int = 1000, bos: bool = True) -> PromptTools:
    """Its prompt tools, which no test may change."""
    return PromptTools(manifest(template, context_length, bos))


def body(**fields: object) -> bytes:
    """A request body."""
    return json.dumps({"model": "demo", **fields}).encode()


def header(
    kind: JobKind,
    request: dict[str, object] | None = None,
    context: dict[str, object] | None = None,
    *,
    background: bool = False,
    status: JobStatus = JobStatus.QUEUED,
) -> JobHeader:
    """What the API knows of a job."""
    return JobHeader(
        job_id=JOB_IDS[kind],
        kind=kind,
        model="demo",
        created_at=CREATED_AT,
        request={"model": "demo", **(request or {})},
        context=context or {},
        background=background,
        status=status,
    )


def event(text: str, *, choice: int = 0, finish: FinishReason | None = None) -> TokenEvent:
    """One choice's step."""
    return TokenEvent(choice=choice, token_ids=(1,), text=text, finish=finish)


def candidate(data: str | bytes, logprob: float, *, token_id: int | None = None) -> Candidate:
    """A token at a place; its bytes make its id unless one is given."""
    data = data.encode() if isinstance(data, str) else data
    return Candidate(int.from_bytes(data) if token_id is None else token_id, data, logprob)


def likely(data: str | bytes, logprob: float, *top: Candidate, token_id: int | None = None) -> TokenLogprobs:
    """A token that was chosen, and the likeliest in its place."""
    return TokenLogprobs(candidate(data, logprob, token_id=token_id), top)


def measured(
    text: str,
    *tokens: TokenLogprobs,
    choice: int = 0,
    finish: FinishReason | None = None,
    prompt: tuple[TokenLogprobs, ...] = (),
) -> TokenEvent:
    """One choice's step of a job that wants log probabilities."""
    ids = tuple(token.chosen.token_id for token in tokens)
    logprobs = EventLogprobs(tokens=tokens, prompt=prompt)
    return TokenEvent(choice=choice, token_ids=ids, text=text, finish=finish, logprobs=logprobs)


def start(attempt: int = 1) -> LogEntry:
    """An attempt's beginning."""
    return LogEntry(attempt=attempt, seq=0, kind=EntryKind.START)


def tokens(seq: int, *events: TokenEvent, attempt: int = 1) -> LogEntry:
    """An engine step."""
    return LogEntry(attempt=attempt, seq=seq, kind=EntryKind.TOKENS, tokens=events)


def end(seq: int, status: JobStatus = JobStatus.COMPLETED, *, attempt: int = 1, **fields: object) -> LogEntry:
    """The end of a job."""
    usage = USAGE if status in (JobStatus.COMPLETED, JobStatus.INCOMPLETE) else None
    fact = End(status=status, usage=usage, ended_at=ENDED_AT, **fields)  # type: ignore[arg-type]
    return LogEntry(attempt=attempt, seq=seq, kind=EntryKind.END, end=fact)


def payloads(frames: Iterable[bytes]) -> list[dict[str, object]]:
    """The JSON of each frame; checks the framing on the way."""
    return [_payload(one) for one in frames]


def _payload(one: bytes) -> dict[str, object]:
    assert one.endswith(b"\n\n")
    assert one.count(b"\n") in (2, 3)
    *names, data = one[:-2].decode().split("\n")
    value = json.loads(data.removeprefix("data: "))
    assert isinstance(value, dict)
    assert names == ([f"event: {value['type']}"] if "type" in value else [])
    return value
