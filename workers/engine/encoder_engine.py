"""The encoding loop: takes texts in, runs those of many jobs through the encoder together, gives vectors out."""

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog

from storage.contract import Failure, FinishReason
from storage.errors import ContextLengthExceeded, InvalidRequest
from workers.engine.sequence import SequenceOutput
from workers.engine.stats import EngineStats

log = structlog.get_logger()


class EncodingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One text.

    job:           texts of one job share the turns that it gets beside other jobs
    second_start:  where the second text of a pair begins; None of a single text
    dimensions:    leading numbers kept of the vector; None keeps all
    is_normalized: whether the vector is made a unit vector; None as the model says
    priority:      lower goes first; an aged one goes first whatever its priority
    """

    sequence_id: str
    job: str
    token_ids: tuple[int, ...]
    second_start: int | None = None
    dimensions: int | None = None
    is_normalized: bool | None = None
    priority: int = 0


class EncoderRunner(Protocol):
    """An encoder. What it makes of a text does not depend on the others of the batch."""

    def encode(self, batch: list[EncodingRequest]) -> list[bytes | None]:
        """The vector or score of each text, little-endian float32; None where numbers are not finite. May raise."""


class EncoderLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a step and of one text.

    max_len:          tokens of one text
    max_batch_tokens: tokens of a step; a longer text is computed alone
    aging_after_s:    how long a text may wait before it goes ahead of more urgent ones
    """

    max_len: int
    vocab_size: int
    max_batch_tokens: int
    aging_after_s: float = 60.0


class _Waiting:
    """A text that waits; `is_gone` once it was taken or cancelled."""

    __slots__ = ("ages_at", "is_gone", "request")

    def __init__(self, request: EncodingRequest, ages_at: float) -> None:
        self.request = request
        self.ages_at = ages_at
        self.is_gone = False


class EncoderEngine:
    """Texts that wait for a batch. Each that was added gets exactly one output, unless it is cancelled.

    Texts of equal priority are taken by start-time fair queueing over tokens: a job of two thousand texts delays a job
    of one text by a step and not by two thousand texts. Source: Goyal, Vin, Cheng 1996, "Start-time Fair Queueing".

    One thread owns an engine: `add`, `cancel` and `step` are called between each other, never at once.
    """

    def __init__(
        self, runner: EncoderRunner, limits: EncoderLimits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """clock: monotonic seconds; measures how long texts wait"""
        self.limits = limits
        self._runner = runner
        self._clock = clock
        self._by_id: dict[str, _Waiting] = {}
        self._by_tag: list[tuple[int, int, int, _Waiting]] = []
        self._by_age: deque[_Waiting] = deque()
        self._arrivals = itertools.count()
        # Virtual time in tokens: the start tag of the text served last, and where each waiting job's next text begins.
        self._virtual_time = 0
        self._next_tag_by_job: dict[str, int] = {}
        self._num_prompt_tokens = self._num_steps = self._num_step_faults = 0

    @property
    def has_work(self) -> bool:
        """Whether texts wait."""
        return bool(self._by_id)

    @property
    def num_steps(self) -> int:
        """Steps whose computation was done."""
        return self._num_steps

    def stats(self) -> EngineStats:
        """What the engine holds now, and what it has done; it has no cache."""
        return EngineStats(
            num_running=0,
            num_waiting=len(self._by_id),
            num_blocks=0,
            num_blocks_used=0,
            num_blocks_cached=0,
            num_prompt_tokens=self._num_prompt_tokens,
            num_cached_tokens=0,
            num_output_tokens=0,
            num_preemptions=0,
            num_steps=self._num_steps,
            num_step_faults=self._num_step_faults,
        )

    def add(self, request: EncodingRequest) -> None:
        """Take a text in; raises ContextLengthExceeded and InvalidRequest for one that can never run."""
        num_tokens = len(request.token_ids)
        if num_tokens > self.limits.max_len:
            raise ContextLengthExceeded(
                f"The text has {num_tokens} tokens, and the model reads {self.limits.max_len} at most."
            )
        if not num_tokens or not 0 <= min(request.token_ids) <= max(request.token_ids) < self.limits.vocab_size:
            raise InvalidRequest(f"A text needs token ids from 0 to {self.limits.vocab_size - 1}.")
        waiting = _Waiting(request, self._clock() + self.limits.aging_after_s)
        tag = max(self._virtual_time, self._next_tag_by_job.get(request.job, 0))
        self._next_tag_by_job[request.job] = tag + num_tokens
        self._by_id[request.sequence_id] = waiting
        self._by_age.append(waiting)
        heapq.heappush(self._by_tag, (request.priority, tag, next(self._arrivals), waiting))

    def cancel(self, sequence_id: str) -> None:
        """Drop the text at once, without output; nothing happens when it is unknown or was computed."""
        waiting = self._by_id.pop(sequence_id, None)
        if waiting is not None:
            waiting.is_gone = True
        self._forget_idle()

    def step(self) -> list[SequenceOutput]:
        """Compute one batch.

        An error of the runner stays inside: the batch is computed again in halves, and the text that fails alone ends
        with `engine_fault`.
        """
        batch = self._next_batch()
        outputs = self._encode(batch) if batch else []
        if batch:
            self._num_steps += 1
            self._num_prompt_tokens += sum(len(request.token_ids) for request in batch)
        self._forget_idle()
        return outputs

    def _next_batch(self) -> list[EncodingRequest]:
        """As many texts as a step may have, aged ones first."""
        batch: list[EncodingRequest] = []
        num_left, now = self.limits.max_batch_tokens, self._clock()
        while (waiting := self._peek(now)) is not None:
            num_tokens = len(waiting.request.token_ids)
            if batch and num_tokens > num_left:
                break
            waiting.is_gone = True
            del self._by_id[waiting.request.sequence_id]
            batch.append(waiting.request)
            num_left -= num_tokens
        return batch

    def _peek(self, now: float) -> _Waiting | None:
        while self._by_age and self._by_age[0].is_gone:
            self._by_age.popleft()
        while self._by_tag and self._by_tag[0][-1].is_gone:
            # A cancelled text moves the virtual time no further than one that was computed.
            self._virtual_time = max(self._virtual_time, heapq.heappop(self._by_tag)[1])
        if not self._by_age:
            return None
        return self._by_age[0] if self._by_age[0].ages_at <= now else self._by_tag[0][-1]

    def _forget_idle(self) -> None:
        """Start anew once nothing waits, so that jobs of the past take no memory."""
        if not self._by_id:
            self._by_tag.clear()
            self._by_age.clear()
            self._next_tag_by_job.clear()
            self._virtual_time = 0

    def _encode(self, batch: list[EncodingRequest]) -> list[SequenceOutput]:
        try:
            vectors = self._runner.encode(batch)
        except Exception as error:  # noqa: BLE001 - whatever the model raises: a fault of one text is that text's alone
            self._num_step_faults += 1
            log.warning("encoding_fault", num_texts=len(batch), error=f"{type(error).__name__}: {error}"[:300])
            if len(batch) == 1:
                return [_failed(batch[0], "engine_fault", "The encoder failed on this text.")]
            half = len(batch) // 2
            return self._encode(batch[:half]) + self._encode(batch[half:])
        return [_output(request, vector) for request, vector in zip(batch, vectors, strict=True)]


def _output(request: EncodingRequest, vector: bytes | None) -> SequenceOutput:
    if vector is None:
        return _failed(request, "numerical_error", "The model computed numbers that are not finite.")
    return SequenceOutput(
        sequence_id=request.sequence_id, token_ids=(), text="", finish=FinishReason.STOP, vector=vector
    )


def _failed(request: EncodingRequest, code: str, message: str) -> SequenceOutput:
    return SequenceOutput(
        sequence_id=request.sequence_id, token_ids=(), text="", failure=Failure(code=code, message=message)
    )
