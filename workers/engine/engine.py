"""The inference loop: takes sequences in, steps the runner, gives tokens and text out."""

import itertools

import structlog

from storage.contract import Failure
from storage.errors import ContextLengthExceeded, InvalidRequest
from workers.engine.limits import EngineLimits
from workers.engine.runner import Chunk, Runner
from workers.engine.scheduler import Scheduler
from workers.engine.sequence import Sequence, SequenceOutput, SequenceRequest
from workers.text.stream import TextFactory

log = structlog.get_logger()


class Engine:
    """Sequences that run together. Every one that was added gets exactly one last output, unless it is cancelled.

    One thread owns an engine: `add`, `cancel` and `step` are called between each other, never at once.
    """

    def __init__(self, runner: Runner, text: TextFactory, limits: EngineLimits) -> None:
        self.limits = limits
        self._runner = runner
        self._text = text
        self._scheduler = Scheduler(limits.num_rows, limits.max_batch_tokens)
        self._sequence_by_id: dict[str, Sequence] = {}
        self._ready: list[SequenceOutput] = []
        self._arrivals = itertools.count()

    @property
    def has_work(self) -> bool:
        """Whether a step would do or yield something."""
        return bool(self._sequence_by_id or self._ready)

    @property
    def num_running(self) -> int:
        """Sequences that hold a row."""
        return len(self._scheduler.rows)

    @property
    def num_waiting(self) -> int:
        """Sequences that were added and hold no row yet."""
        return self._scheduler.num_waiting

    def add(self, request: SequenceRequest) -> None:
        """Take a sequence in.

        Its emitted ids rebuild text and stop strings; text of theirs is not given out again. When they already
        end the sequence, the next step yields its last output without ids.

        Raises ContextLengthExceeded and InvalidRequest for what can never run.
        """
        self._check(request)
        sequence = Sequence(
            request,
            self._text.open(request.sampling.stop),
            arrival=next(self._arrivals),
            eos_token_ids=self.limits.eos_token_ids,
        )
        for token_id in request.emitted:
            sequence.accept(token_id)
            if sequence.finish is not None:
                self._ready.append(_output(sequence, (), sequence.close()))
                return
        self._sequence_by_id[sequence.sequence_id] = sequence
        self._scheduler.add(sequence)

    def cancel(self, sequence_id: str) -> None:
        """Drop the sequence at once, without further output; nothing happens when it is unknown or has ended."""
        sequence = self._sequence_by_id.get(sequence_id)
        if sequence is not None:
            self._remove(sequence)
        self._ready = [output for output in self._ready if output.sequence_id != sequence_id]

    def step(self) -> list[SequenceOutput]:
        """Compute one batch; outputs of the sequences that drew a token or ended.

        An error of the runner stays inside: the cache is rebuilt and the step's sequences are computed again, one
        by one; the one that fails alone ends with `engine_fault`. Raises only what `Runner.reset` raises.
        """
        outputs = self._compute()
        ready, self._ready = self._ready, []
        return ready + outputs

    def _compute(self) -> list[SequenceOutput]:
        chunks = self._scheduler.plan()
        if not chunks:
            return []
        try:
            tokens = self._runner.step(chunks)
        except Exception:
            log.exception("step_fault", num_sequences=len(chunks), num_tokens=sum(c.end - c.start for c in chunks))
            return self._recover(chunks)
        return self._advance(chunks, tokens)

    def _advance(self, chunks: list[Chunk], tokens: list[int | None]) -> list[SequenceOutput]:
        outputs = []
        drawn = iter(tokens)
        for chunk in chunks:
            sequence = self._sequence_by_id[chunk.sequence_id]
            sequence.num_computed = chunk.end
            if chunk.is_sampled:
                outputs.append(self._take(sequence, next(drawn)))
        return outputs

    def _take(self, sequence: Sequence, token_id: int | None) -> SequenceOutput:
        if sequence in self._scheduler.suspects:
            self._scheduler.suspects.remove(sequence)
        if token_id is None:
            return self._fail(sequence, "numerical_error", "The model's output was not finite")
        try:
            text = sequence.accept(token_id)
            if sequence.finish is not None:
                text += sequence.close()
        except Exception:
            log.exception("text_fault", sequence_id=sequence.sequence_id)
            return self._fail(sequence, "engine_fault", "The engine could not turn the output into text")
        if sequence.finish is not None:
            self._remove(sequence)
        return _output(sequence, (token_id,), text)

    def _recover(self, chunks: list[Chunk]) -> list[SequenceOutput]:
        """Rebuild the cache after a failed step and put its sequences on trial; a sequence that was on trial fails."""
        suspects = self._scheduler.suspects
        self._runner.reset()
        if suspects:
            self._scheduler.restart(suspects)
            return [self._fail(suspects[0], "engine_fault", "The engine failed on this sequence")]
        self._scheduler.restart([self._sequence_by_id[chunk.sequence_id] for chunk in chunks])
        return []

    def _fail(self, sequence: Sequence, code: str, message: str) -> SequenceOutput:
        self._remove(sequence)
        failure = Failure(code=code, message=message)
        return SequenceOutput(sequence_id=sequence.sequence_id, token_ids=(), text="", failure=failure)

    def _remove(self, sequence: Sequence) -> None:
        del self._sequence_by_id[sequence.sequence_id]
        freed = self._scheduler.remove(sequence)
        if freed is not None:
            self._runner.release(*freed)

    def _check(self, request: SequenceRequest) -> None:
        assert request.sequence_id not in self._sequence_by_id
        if not request.prompt:
            raise InvalidRequest("A prompt needs at least one token")
        if request.sampling.max_tokens < 1:
            raise InvalidRequest("max_tokens must be at least 1")
        if len(request.prompt) + request.sampling.max_tokens > self.limits.max_len:
            raise ContextLengthExceeded(
                f"The prompt has {len(request.prompt)} tokens and up to {request.sampling.max_tokens} are to follow; "
                f"this worker runs sequences of at most {self.limits.max_len} tokens"
            )
        if not all(0 <= token_id < self.limits.vocab_size for token_id in request.prompt + request.emitted):
            raise InvalidRequest(f"Token ids must be at least 0 and below {self.limits.vocab_size}")


def _output(sequence: Sequence, token_ids: tuple[int, ...], text: str) -> SequenceOutput:
    return SequenceOutput(sequence_id=sequence.sequence_id, token_ids=token_ids, text=text, finish=sequence.finish)
