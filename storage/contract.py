"""The values that travel between the rooms: what a job asks, what its log says, what came of it.

Structs of msgspec rather than dataclasses: they cross process boundaries on the per-token path
(see docs/decisions/0001-msgspec-structs.md).
"""

from enum import IntEnum, StrEnum

import msgspec


class JobStatus(StrEnum):
    """States of a job, in OpenAI's words; `storage/transitions.py` says which may follow which."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows this state."""
        return self not in (JobStatus.QUEUED, JobStatus.IN_PROGRESS)


class JobKind(StrEnum):
    """Which protocol a job was asked in, and so where it can be read."""

    RESPONSE = "response"
    CHAT = "chat"
    COMPLETION = "completion"


class FinishReason(StrEnum):
    """Why one choice ended: an end-of-sequence token or stop string, or its token limit."""

    STOP = "stop"
    LENGTH = "length"


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is chosen and when a choice ends.

    max_tokens:  limit of output tokens of each choice, >= 1
    temperature: >= 0; under 0.01 is greedy
    top_p:       (0, 1]
    top_k:       0 is off
    seed:        64 bits; with (position, token id) it fixes all sampling noise
    stop:        strings that end a choice; they are not part of its text
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    stop: tuple[str, ...] = ()


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is to run, in tokens; it holds nothing of any protocol.

    prompts:     [num_prompts][num_tokens] token ids, none empty
    num_choices: choices of each prompt; choice index = prompt index * num_choices + i
    """

    prompts: tuple[tuple[int, ...], ...]
    sampling: SamplingParams
    num_choices: int = 1

    @property
    def total_choices(self) -> int:
        """Number of choices of the whole job."""
        return len(self.prompts) * self.num_choices


class TokenEvent(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One engine step's output for one choice.

    token_ids: new ids, the end-of-sequence id included
    text:      text that became certain in this step; may be empty (held back, or half a character)
    finish:    set on the choice's last event
    """

    choice: int
    token_ids: tuple[int, ...]
    text: str
    finish: FinishReason | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens read and written by a job; each distinct prompt is counted once."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed: a stable code (`numerical_error`, `worker_lost`, ...) and a sentence for its owner."""

    code: str
    message: str


class End(msgspec.Struct, frozen=True, kw_only=True):
    """A job's one terminal state, as its log tells it.

    ended_at: Unix time, whole seconds
    """

    status: JobStatus
    usage: Usage | None
    ended_at: int
    failure: Failure | None = None


class EntryKind(IntEnum):
    """What a log entry says: an attempt began, tokens came, the job ended."""

    START = 0
    TOKENS = 1
    END = 2


class LogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a job's event log; its id in Redis is `{attempt}-{seq}`.

    Entries of kind TOKENS are numbered 1, 2, 3, ... across all attempts. A START has seq 0. An END has the
    next seq after the last TOKENS, or seq 0 of attempt + 1 when no worker wrote it.
    """

    attempt: int
    seq: int
    kind: EntryKind
    tokens: tuple[TokenEvent, ...] = ()
    end: End | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that came of a job: its TOKENS entries in order, so that a replay from the row equals one
    from the log byte for byte.

    entries: entry i has seq i + 1
    """

    entries: tuple[tuple[TokenEvent, ...], ...] = ()


class JobHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What the API must know of a job to fold its log into protocol objects.

    created_at: Unix time, whole seconds
    request:    the accepted wire request, as JSON values
    context:    what the protocol computed at submission (see `api/protocol`), as JSON values
    """

    job_id: str
    kind: JobKind
    model: str
    created_at: int
    request: dict[str, object]
    context: dict[str, object]
    background: bool = False
    status: JobStatus = JobStatus.QUEUED


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker tells the API about its model, so that the API needs no model files.

    tokenizer_json: the `tokenizers` library's serialised tokenizer
    chat_template:  a Jinja template as in transformers, None for a model without chat
    special_tokens: names as the template knows them (`bos_token`, `eos_token`, ...) to token text
    """

    model: str
    context_length: int
    tokenizer_json: str
    chat_template: str | None
    special_tokens: dict[str, str]
    capabilities: dict[str, bool]


class ModelStatus(StrEnum):
    """Whether a model can run a job now, soon, or not at all."""

    READY = "ready"
    LOADING = "loading"
    OFFLINE = "offline"


class WorkerStatus(StrEnum):
    """A generation worker's own word about itself; DEAD is also said by its supervisor or the sweeper."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"
