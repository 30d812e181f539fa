"""Types shared by API and workers: job specs, log entries, results.

Structs of msgspec rather than dataclasses: they cross process boundaries on the per-token path
(see docs/decisions/0001-msgspec-structs.md).
"""

from enum import IntEnum, StrEnum
from typing import Self

import msgspec


class JobStatus(StrEnum):
    """States of a job, in OpenAI's words; `storage/jobs/transitions.py` says which may follow which."""

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
    """The kind of a job: the protocol in which it was created and is read. `api/protocol/kinds.py` has the rest.

    A row of a newer version may hold a kind that this version does not know; such a value is a kind like the others.
    prefix: of its public ids; noun: of its webhook events
    """

    prefix: str
    noun: str

    def __new__(cls, value: str, prefix: str = "", noun: str = "") -> Self:
        kind = str.__new__(cls, value)
        kind._name_, kind._value_ = value.upper(), value
        kind.prefix, kind.noun = prefix or f"{value}_", noun or value
        return kind

    RESPONSE = "response", "resp_", "response"
    CHAT = "chat", "chatcmpl-", "chat.completion"
    COMPLETION = "completion", "cmpl-", "completion"
    EMBEDDING = "embedding", "embd-", "embedding"
    RERANK = "rerank", "rerank-", "rerank"
    SCORE = "score", "score-", "score"

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        # Not cls(value), which Enum has replaced by a lookup of known members.
        return cls.__dict__["__new_member__"](cls, value) if isinstance(value, str) else None


class PriorityQueue(StrEnum):
    """The priority queue of its model in which a job's ticket waits; members in order of urgency.

    PRIORITY: workers take its tickets and those of the front queue in turns
    FRONT:    a worker takes it even when it is full, and preempts jobs of lower priority
    BACK:     it waits until a worker has room
    """

    PRIORITY = "priority"
    FRONT = "front"
    BACK = "back"


# Jobs of this priority or a lower number go to the priority queue.
URGENT_PRIORITY = -10
# The default of background jobs. Jobs of this priority or a higher number go to the back queue.
BACKGROUND_PRIORITY = 10


def priority_queue_of(priority: int) -> PriorityQueue:
    """The priority queue for tickets of jobs of this priority."""
    if priority <= URGENT_PRIORITY:
        return PriorityQueue.PRIORITY
    return PriorityQueue.BACK if priority >= BACKGROUND_PRIORITY else PriorityQueue.FRONT


class FinishReason(StrEnum):
    """Why one choice ended: an end-of-sequence token or stop string, or its token limit."""

    STOP = "stop"
    LENGTH = "length"


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """How the next token is chosen and when a choice ends.

    max_tokens:         limit of output tokens of each choice, >= 0; 0 only reads the prompt
    temperature:        >= 0; under 0.01 is greedy
    top_p:              (0, 1]
    top_k:              0 is off
    min_p:              [0, 1): tokens less likely than this share of the likeliest are out; 0 is off
    presence_penalty:   taken once from the logits of tokens that the output holds
    frequency_penalty:  taken from the logits of tokens as often as the output holds them
    repetition_penalty: > 0; divides positive and multiplies negative logits of tokens in prompt or output; 1 is off
    logit_bias:         (token id, added to its logit), each id once
    seed:               64 bits; with (position, token id) it fixes all sampling noise
    stop:               strings that end a choice; they are not part of its text
    stop_token_ids:     ids that end a choice, as its end-of-sequence ids do
    ignore_eos:         whether end-of-sequence ids are tokens like others
    min_tokens:         output tokens before which neither an end-of-sequence id nor a stop token id is sampled
    logprobs:           alternatives reported for each output token, 0-20, besides its own; None reports nothing
    prompt_logprobs:    the same for each prompt token but the first
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    seed: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None


# Stands before the text of each token of `OutputFormat.marker_ids`; a noncharacter that workers replace in other text.
MARKER_SIGN = "\ufdd0"


class ThinkingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Where thoughts stand in an output and how long they may be.

    opening:     text of the marker that begins a thought, as the output has it
    closing:     text of the marker that ends it
    closing_ids: ids of the closing marker, forced one after another when the limit is reached
    is_open:     whether the prompt ends inside a thought
    max_tokens:  of one thought, without the closing marker; None is no limit
    """

    opening: str
    closing: str
    closing_ids: tuple[int, ...]
    is_open: bool = False
    max_tokens: int | None = None


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What the choices of a job may write, and which parts of it are not the answer's text.

    grammar:    llguidance's grammar of a choice's whole output, thoughts and calls included, as its JSON or Lark text;
                None allows everything
    marker_ids: added tokens that are part of the output's text, each behind MARKER_SIGN, special ones included. A
                grammar writes them as `<[ID]>`; for its matcher they are special tokens, whatever the tokenizer says.
    spans:      (opening, closing) texts of the parts in which stop strings do not count
    thinking:   None where the output has no thoughts
    """

    grammar: str | None = None
    marker_ids: tuple[int, ...] = ()
    spans: tuple[tuple[str, str], ...] = ()
    thinking: ThinkingLimits | None = None


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A job's spec: what a worker runs, in tokens; independent of any protocol.

    prompts:     [num_prompts][num_tokens] token ids, none empty
    num_choices: choices of each prompt; choice index = prompt index * num_choices + i
    priority:    lower goes first in the engine; equal ones in order of arrival
    output:      None for plain text without a constraint
    """

    prompts: tuple[tuple[int, ...], ...]
    sampling: SamplingParams
    num_choices: int = 1
    priority: int = 0
    output: OutputFormat | None = None

    @property
    def total_choices(self) -> int:
        """Number of choices of the whole job."""
        return len(self.prompts) * self.num_choices

    @property
    def priority_queue(self) -> PriorityQueue:
        """The priority queue of the job's tickets."""
        return priority_queue_of(self.priority)


# The least log probability that is reported; OpenAI uses it for "very unlikely". Logs are JSON, which has no number for
# the logarithm of zero.
MIN_LOGPROB = -9999.0


class Candidate(msgspec.Struct, frozen=True, array_like=True):
    """A candidate token at one position, and its log probability there.

    data:    the token's own bytes, which need not be whole characters; empty for a special token without text
    logprob: of the model's distribution, before temperature, filters, penalties and bias; at least MIN_LOGPROB
    """

    token_id: int
    data: bytes
    logprob: float


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log probabilities at one position: the chosen token's and those of the likeliest, in descending order."""

    chosen: Candidate
    top: tuple[Candidate, ...] = ()


class EventLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log probabilities that a token event carries where they were asked for.

    tokens: one for each of the event's token ids
    prompt: one for each prompt token but the first, on the choice's first event; empty elsewhere
    """

    tokens: tuple[TokenLogprobs, ...] = ()
    prompt: tuple[TokenLogprobs, ...] = ()


class TokenEvent(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One engine step's output for one choice.

    token_ids: new ids, the end-of-sequence id included
    text:      text that became certain in this step; may be empty (held back, or half a character)
    finish:    set on the choice's last event
    logprobs:  None unless the job asked for them
    """

    choice: int
    token_ids: tuple[int, ...]
    text: str
    finish: FinishReason | None = None
    logprobs: EventLogprobs | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens read and written by a job; each of its prompts is counted once, whatever the number of choices.

    cached_tokens:    of the prompt tokens, those that no choice of the last attempt had to compute
    reasoning_tokens: of the completion tokens, those of thoughts, their markers included
    """

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job failed: a stable code (`numerical_error`, `worker_lost`, ...) and a sentence for its owner."""

    code: str
    message: str


class End(msgspec.Struct, frozen=True, kw_only=True):
    """A job's terminal state, as the END entry of its log holds it.

    ended_at: Unix time, whole seconds
    """

    status: JobStatus
    usage: Usage | None
    ended_at: int
    failure: Failure | None = None


class EntryKind(IntEnum):
    """Kinds of log entries: an attempt began, tokens were emitted, the job ended.

    UNKNOWN is any kind of a later version of this program, as during a rolling upgrade; readers skip it.
    """

    UNKNOWN = -1
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
    """A job's result: its TOKENS entries in order. A replay from the row equals one from the log byte for byte.

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


class WorkerStatus(StrEnum):
    """A generation worker's status, set by itself; its supervisor or the sweeper may also set DEAD."""

    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    DEAD = "dead"
