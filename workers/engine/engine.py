"""The inference loop: takes sequences in, steps the runner, gives tokens and text out."""

import itertools
import time
from collections import deque
from collections.abc import Callable

import structlog

from storage.contract import Failure, FinishReason
from storage.errors import ContextLengthExceeded, InvalidRequest
from workers.engine.runner import OutOfDeviceMemory, Ranked, Runner, StepOutput
from workers.engine.scheduler import Batch, Scheduler
from workers.engine.sequence import Sequence, SequenceOutput, SequenceRequest
from workers.engine.stats import EngineStats
from workers.engine.step_limits import EngineLimits
from workers.text.stream import TextFactory

log = structlog.get_logger()


class Engine:
    """Sequences that run together. Every one that was added gets exactly one last output, unless it is cancelled.

    With a runner that works one launch ahead, the next step is launched before the tokens of the last are known. A
    sequence that turns out to have ended drops its superfluous token; its blocks are freed when that is collected.

    One thread owns an engine: `add`, `cancel` and `step` are called between each other, never at once.
    """

    def __init__(
        self,
        runner: Runner,
        text: TextFactory,
        limits: EngineLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """clock: monotonic seconds; measures how long sequences wait"""
        self.limits = limits
        self._runner = runner
        self._text = text
        self._scheduler = Scheduler(limits, clock)
        self._sequence_by_id: dict[str, Sequence] = {}
        self._ready: list[SequenceOutput] = []
        self._arrivals = itertools.count()
        self._under_way: deque[Batch] = deque()
        # Ended while the one launch under way still computes them.
        self._leaving: list[Sequence] = []
        self._num_prompt_tokens = self._num_cached_tokens = self._num_output_tokens = 0
        self._num_steps = self._num_step_faults = 0

    @property
    def has_work(self) -> bool:
        """Whether a step would do or yield something."""
        return bool(self._sequence_by_id or self._ready or self._under_way)

    @property
    def num_running(self) -> int:
        """Sequences that hold blocks."""
        return self._scheduler.num_running

    @property
    def num_waiting(self) -> int:
        """Sequences that were added, or preempted, and hold no blocks."""
        return self._scheduler.num_waiting

    @property
    def num_steps(self) -> int:
        """Steps whose computation was done."""
        return self._num_steps

    def stats(self) -> EngineStats:
        """What the engine holds now, and what it has done."""
        blocks = self._scheduler.blocks
        return EngineStats(
            num_running=self.num_running,
            num_waiting=self.num_waiting,
            num_blocks=blocks.num_blocks,
            num_blocks_used=blocks.num_used,
            num_blocks_cached=blocks.num_cached,
            num_prompt_tokens=self._num_prompt_tokens,
            num_cached_tokens=self._num_cached_tokens,
            num_output_tokens=self._num_output_tokens,
            num_preemptions=self._scheduler.num_preemptions,
            num_steps=self._num_steps,
            num_step_faults=self._num_step_faults,
        )

    def add(self, request: SequenceRequest) -> None:
        """Take a sequence in.

        Its emitted ids rebuild text and stop strings; text of theirs is not given out again. When they already
        end the sequence, the next step yields its last output without ids.

        Raises ContextLengthExceeded and InvalidRequest for what can never run.
        """
        self._check(request)
        sequence = Sequence(
            request,
            self._text.open(request.sampling.stop, request.sampling.min_tokens, request.prompt, request.output),
            arrival=next(self._arrivals),
            patience_s=self.limits.aging_after_s,
            eos_token_ids=self.limits.eos_token_ids,
        )
        for token_id in request.emitted:
            sequence.accept(token_id)
            if sequence.finish is not None:
                self._ready.append(_output(sequence, (), sequence.close()))
                return
        if sequence.may_force and not self._begin(sequence):
            return
        self._sequence_by_id[sequence.sequence_id] = sequence
        self._scheduler.add(sequence)

    def _begin(self, sequence: Sequence) -> bool:
        """Take the tokens that are forced before any is sampled; False where there is nothing to run then."""
        is_empty = sequence.max_total == sequence.num_prompt
        token_ids, text = sequence.advance([] if is_empty else sequence.forced_ids())
        failure = _dead_end_of(sequence)
        if failure is not None:
            self._ready.append(_failed(sequence, failure))
        elif sequence.finish is not None or sequence.unsent[0]:
            self._ready.append(_output(sequence, token_ids, text))
        else:
            sequence.unsent = token_ids, text
        return failure is None and sequence.finish is None

    def cancel(self, sequence_id: str) -> None:
        """Drop the sequence at once, without further output; nothing happens when it is unknown or has ended."""
        sequence = self._sequence_by_id.get(sequence_id)
        if sequence is not None:
            self._remove(sequence)
        self._ready = [output for output in self._ready if output.sequence_id != sequence_id]

    def step(self) -> list[SequenceOutput]:
        """Compute one batch; outputs of the sequences that sampled a token or ended.

        An error of the runner stays inside: the cache is rebuilt and the step's sequences are computed again, one
        by one; the one that fails alone ends with `engine_fault`. A step that ran out of memory is computed again in
        halves first. Raises only what `Runner.reset` raises.
        """
        outputs = self._compute()
        if self._ready:
            outputs = self._ready + outputs
            self._ready = []
        return outputs

    def _compute(self) -> list[SequenceOutput]:
        try:
            self._launch()
            if not self._under_way:
                return []
            output = self._runner.collect()
        except Exception as error:
            num_sequences = sum(len(batch.sequences) for batch in self._under_way)
            log.exception("step_fault", num_launches=len(self._under_way), num_sequences=num_sequences)
            return self._recover(is_memory=isinstance(error, OutOfDeviceMemory))
        self._num_steps += 1
        return self._advance(self._under_way.popleft(), output)

    def _launch(self) -> None:
        """As many launches as may be under way."""
        while len(self._under_way) <= self._runner.num_ahead:
            batch = self._scheduler.plan(is_ahead=bool(self._under_way))
            if self._scheduler.needs_zeroing:
                self._runner.clear(self._scheduler.needs_zeroing)
                self._scheduler.needs_zeroing = []
            if not batch.chunks:
                return
            self._under_way.append(batch)
            self._runner.launch(batch.chunks)

    def _advance(self, batch: Batch, output: StepOutput) -> list[SequenceOutput]:
        leaving, self._leaving = self._leaving, []
        for place, ranked in output.prompt_logprobs.items():
            batch.sequences[place].prompt_logprobs += ranked
        outputs = []
        for place, (sequence, token_ids) in enumerate(zip(batch.sequences, output.token_ids, strict=True)):
            if token_ids is None:
                self._scheduler.blocks.invalidate(sequence.table)
                if sequence.is_open:
                    outputs.append(self._fail(sequence, _why_unsampled(sequence)))
            elif token_ids and sequence.is_open:
                outputs.append(self._take(sequence, token_ids, output.logprobs.get(place, ())))
        for sequence in leaving:
            self._scheduler.release(sequence)
        return outputs

    def _take(self, sequence: Sequence, sampled: tuple[int, ...], ranked: tuple[Ranked, ...]) -> SequenceOutput:
        if not sequence.table.is_validated:
            # Its prefill is done, and what that computed is finite.
            self._scheduler.blocks.validate(sequence.table)
            if sequence in self._scheduler.isolated:
                self._scheduler.isolated.remove(sequence)
        try:
            token_ids, text = self._accept(sequence, sampled)
        except Exception:
            log.exception("text_fault", sequence_id=sequence.sequence_id)
            return self._fail(sequence, _engine_fault("The engine could not turn the output into text"))
        if sequence.may_force and (failure := _dead_end_of(sequence)):
            return self._fail(sequence, failure)
        if sequence.finish is not None:
            self._remove(sequence)
        if sequence.had_output and not ranked:
            return SequenceOutput(
                sequence_id=sequence.sequence_id, token_ids=token_ids, text=text, finish=sequence.finish
            )
        return self._full_output(sequence, token_ids, text, ranked)

    def _accept(self, sequence: Sequence, token_ids: tuple[int, ...]) -> tuple[tuple[int, ...], str]:
        """The ids that the sequence emits, up to its last, and text that became certain."""
        if sequence.max_total == sequence.num_prompt:
            sequence.finish = FinishReason.LENGTH
            return (), ""
        if len(token_ids) == 1 and not sequence.may_force:
            self._num_output_tokens += 1
            text = sequence.accept(token_ids[0])
            return token_ids, text if sequence.finish is None else text + sequence.close()
        token_ids, text = sequence.advance(token_ids)
        # Of several tokens only the last may lack its keys and values; the others are computed like a prompt's.
        sequence.is_prefilling = sequence.num_computed + 1 < len(sequence.tokens)
        self._num_output_tokens += len(token_ids)
        return token_ids, text

    def _full_output(
        self, sequence: Sequence, token_ids: tuple[int, ...], text: str, ranked: tuple[Ranked, ...]
    ) -> SequenceOutput:
        """An output with log probabilities, or the first one."""
        is_first = not sequence.had_output
        num_cached = min(sequence.num_cached, sequence.num_prompt) if is_first else 0
        if is_first:
            self._num_prompt_tokens += sequence.num_prompt
            self._num_cached_tokens += num_cached
        return SequenceOutput(
            sequence_id=sequence.sequence_id,
            token_ids=token_ids,
            text=text,
            finish=sequence.finish,
            logprobs=ranked[: len(token_ids)],
            prompt_logprobs=sequence.take_prompt_logprobs() if is_first else (),
            num_cached=num_cached,
        )

    def _recover(self, *, is_memory: bool) -> list[SequenceOutput]:
        """Rebuild the cache after a failed step, and try its sequences in halves or one by one.

        The one that was tried alone fails.
        """
        batches, self._under_way, self._leaving = self._under_way, deque(), []
        sequences = list(dict.fromkeys(one for batch in batches for one in batch.sequences if one.is_open))
        self._num_step_faults += 1
        self._runner.reset()
        isolated = self._scheduler.isolated
        self._scheduler.restart()
        if isolated:
            return [self._fail(isolated[0], _engine_fault("The engine failed on this sequence"))]
        if is_memory and not self._scheduler.cautious:
            self._scheduler.cautious.update(sequences)
        else:
            self._scheduler.isolated = sequences
        return []

    def _fail(self, sequence: Sequence, failure: Failure) -> SequenceOutput:
        self._remove(sequence)
        return _failed(sequence, failure)

    def _remove(self, sequence: Sequence) -> None:
        del self._sequence_by_id[sequence.sequence_id]
        sequence.is_open = False
        self._scheduler.remove(sequence)
        if any(sequence in batch.sequences for batch in self._under_way):
            self._leaving.append(sequence)
        else:
            self._scheduler.release(sequence)

    def _check(self, request: SequenceRequest) -> None:
        assert request.sequence_id not in self._sequence_by_id
        if not request.prompt:
            raise InvalidRequest("A prompt needs at least one token")
        if request.sampling.max_tokens < 0:
            raise InvalidRequest("max_tokens must be at least 0")
        if len(request.prompt) + request.sampling.max_tokens > self.limits.max_len:
            raise ContextLengthExceeded(
                f"The prompt has {len(request.prompt)} tokens and up to {request.sampling.max_tokens} are to follow; "
                f"this worker runs sequences of at most {self.limits.max_len} tokens"
            )
        token_ids = (*request.prompt, *request.emitted, *(token_id for token_id, _ in request.sampling.logit_bias))
        if min(token_ids) < 0 or max(token_ids) >= self.limits.vocab_size:
            raise InvalidRequest(f"Token ids must be at least 0 and below {self.limits.vocab_size}")


def _output(sequence: Sequence, token_ids: tuple[int, ...], text: str) -> SequenceOutput:
    return SequenceOutput(sequence_id=sequence.sequence_id, token_ids=token_ids, text=text, finish=sequence.finish)


def _failed(sequence: Sequence, failure: Failure) -> SequenceOutput:
    return SequenceOutput(sequence_id=sequence.sequence_id, token_ids=(), text="", failure=failure)


def _why_unsampled(sequence: Sequence) -> Failure:
    """Why no token could be sampled."""
    if sequence.constraint is not None:
        sequence.constraint.find_dead_end()
    return _dead_end_of(sequence) or Failure(code="numerical_error", message="The model's output was not finite")


def _dead_end_of(sequence: Sequence) -> Failure | None:
    """Why its grammar lets nothing follow."""
    if sequence.constraint is None or not sequence.constraint.failure:
        return None
    message = f"The grammar allows no next token: {sequence.constraint.failure}"
    return Failure(code="grammar_dead_end", message=message)


def _engine_fault(message: str) -> Failure:
    return Failure(code="engine_fault", message=message)
