"""A runner that holds the engine to its word, and the plain function that its tokens follow."""

from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import structs

from storage.contract import FinishReason, SamplingParams
from tests.fakes import FakePart, FakeRunner
from workers.engine.engine import Engine
from workers.engine.runner import Chunk, OutOfDeviceMemory, StepOutput
from workers.engine.sampling_seed import position_key
from workers.engine.sequence import SequenceOutput, SequenceRequest
from workers.engine.step_limits import EngineLimits
from workers.text.stream import TextFactory

EOS = 0
VOCAB_SIZE = 40
# Whoever has this id in its prompt computes what is not finite from there on. The model never says it.
POISON = VOCAB_SIZE - 1
LIMITS = EngineLimits(
    max_running=4,
    max_len=48,
    num_blocks=4 * 12,
    block_size=4,
    max_batch_tokens=7,
    max_prefill_tokens=7,
    vocab_size=VOCAB_SIZE,
    eos_token_ids=frozenset({EOS}),
)
# Ids are letters from "A" on; the end-of-sequence id has no text.
TEXT = TextFactory(decode=lambda ids: "".join(chr(64 + token_id) for token_id in ids), spoken=range(1, VOCAB_SIZE))


def next_token(tokens: list[int], seed: int) -> int:
    """What the model says: a function of all tokens and their places, the seed and the position."""
    mixed = 0
    for token_id in tokens:
        mixed = (mixed * 31 + token_id + 1) % 1_000_003
    return (mixed + position_key(seed, len(tokens))[0]) % POISON


def expected_output(request: SequenceRequest) -> tuple[list[int], FinishReason]:
    """All output ids of a request without stop strings, emitted ones included, and why they end."""
    sampling, ids = request.sampling, list(request.emitted)
    ending = set(sampling.stop_token_ids) | (set() if sampling.ignore_eos else {EOS})
    while len(ids) < sampling.max_tokens and not (ids and ids[-1] in ending):
        ids.append(next_token([*request.prompt, *ids], sampling.seed))
    return ids, FinishReason.STOP if ids and ids[-1] in ending else FinishReason.LENGTH


def request(sequence_id: str, num_prompt: int = 3, max_tokens: int = 8, **changes: object) -> SequenceRequest:
    """A request whose prompt is all ones, or `prompt`; other `changes` go to the request or to its sampling."""
    of_sampling = set(SamplingParams.__struct_fields__) & set(changes)
    sampling = {name: changes.pop(name) for name in of_sampling}
    changes.setdefault("prompt", (1,) * num_prompt)
    return SequenceRequest(
        sequence_id=sequence_id,
        sampling=SamplingParams(max_tokens=max_tokens, **sampling),  # type: ignore[arg-type]  # by name
        **changes,  # type: ignore[arg-type]  # by name
    )


def sequences(count: int, **changes: object) -> list[SequenceRequest]:
    """Requests of different lengths and seeds, s0, s1, ..."""
    return [request(f"s{i}", num_prompt=2 + 3 * i, seed=i, **changes) for i in range(count)]  # type: ignore[arg-type]


class CheckedRunner(FakeRunner):
    """Asserts that every chunk is what it may be, and fails when it is set to.

    breaking:           sequences whose steps raise
    hungry:             sequences whose steps run out of memory
    not_finite:         sequences whose logits are not finite
    num_faults:         launches that will raise whatever is in them
    num_failed_outputs: collected launches that will
    num_memory_faults:  larger steps than `max_step_tokens` that will run out of memory
    batches, sizes:     the sequences of every launch, and how many tokens it computed
    asked:              what the last chunk of every launch asked about its prompt
    broken:             what the engine did against its word; an error raised here would be a failed step to it
    """

    def __init__(self, limits: EngineLimits = LIMITS, num_ahead: int = 0) -> None:
        super().__init__(limits=limits, num_ahead=num_ahead)
        self.breaking: set[str] = set()
        self.hungry: set[str] = set()
        self.not_finite: set[str] = set()
        self.num_faults = 0
        self.num_failed_outputs = 0
        self.max_step_tokens = 0
        self.num_memory_faults = 0
        self.broken: list[AssertionError] = []
        self.batches: list[list[str]] = []
        self.sizes: list[int] = []
        self.asked: list[int | None] = []

    def launch(self, chunks: list[Chunk]) -> None:
        """Look at the chunks; fail if set to, or if they are too many tokens."""
        with self._noted():
            super().launch(chunks)
        self.batches.append([chunk.sequence_id for chunk in chunks])
        self.sizes.append(sum(chunk.end - chunk.start for chunk in chunks))
        self.asked.append(chunks[-1].sampling.prompt_logprobs)
        with self._noted():
            self._check(chunks)
        if self.num_memory_faults and self.sizes[-1] > self.max_step_tokens:
            self.num_memory_faults -= 1
            raise OutOfDeviceMemory
        if self.hungry & set(self.batches[-1]):
            raise OutOfDeviceMemory
        if self.num_faults:
            self.num_faults -= 1
            raise RuntimeError("this step fails")
        if self.breaking & set(self.batches[-1]):
            raise RuntimeError("a sequence breaks this step")

    def collect(self) -> StepOutput:
        """The tokens, or a failure that leaves a half-written cache behind."""
        output = super().collect()
        if self.num_failed_outputs:
            self.num_failed_outputs -= 1
            raise RuntimeError("this step fails late")
        return output

    def clear(self, blocks: list[int]) -> None:
        """Forget what the blocks hold."""
        with self._noted():
            super().clear(blocks)

    def next_token(self, part: FakePart, ids: list[int]) -> int | None:
        """The token behind the ids that the blocks hold; None where one of them, or what lies behind them, is poison.

        Masked positions are multiplied by zero, which does not help against what is not finite.
        """
        if part.chunk.sequence_id in self.not_finite or any(POISON in self.memory[block] for block in part.blocks):
            return None
        return next_token(ids, part.chunk.sampling.seed)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        try:
            yield
        except AssertionError as error:
            self.broken.append(error)
            raise

    def _check(self, chunks: list[Chunk]) -> None:
        limits = self.limits
        assert chunks
        assert sum(chunk.end - chunk.start for chunk in chunks) <= limits.max_batch_tokens
        assert len({chunk.sequence_id for chunk in chunks}) == len(chunks) <= limits.max_running
        lengths = [chunk.end - chunk.start for chunk in chunks]
        assert 1 not in lengths[lengths.count(1) :]
        for chunk in chunks:
            assert chunk.start < chunk.end <= len(chunk.tokens) + chunk.is_pending <= limits.max_len
            assert chunk.end <= len(chunk.blocks) * limits.block_size
            assert len(set(chunk.blocks)) == len(chunk.blocks)
            assert chunk.is_pending == (chunk.start == len(chunk.tokens))
            assert not chunk.is_pending or (self.num_ahead and len(self.under_way) == 2)
        self._check_writes()

    def _check_writes(self) -> None:
        """No two sequences write one block, not even in launches that are under way together."""
        writer_by_block: dict[int, str] = {}
        for parts in self.under_way:
            for part in parts:
                first = part.chunk.start // self.limits.block_size
                for block in part.blocks[first:]:
                    assert writer_by_block.setdefault(block, part.chunk.sequence_id) == part.chunk.sequence_id


def run(engine: Engine, *requests: SequenceRequest) -> dict[str, list[SequenceOutput]]:
    """Outputs of the requests by id, after all work is done."""
    for one in requests:
        engine.add(one)
    outputs: dict[str, list[SequenceOutput]] = {one.sequence_id: [] for one in requests}
    while engine.has_work:
        for output in engine.step():
            outputs.setdefault(output.sequence_id, []).append(output)
    return outputs


def ids_of(outputs: list[SequenceOutput]) -> list[int]:
    """All ids of one sequence's outputs."""
    return [token_id for output in outputs for token_id in output.token_ids]


def text_of(outputs: list[SequenceOutput]) -> str:
    """All text of one sequence's outputs."""
    return "".join(output.text for output in outputs)


def said(outputs: dict[str, list[SequenceOutput]]) -> dict[str, list[SequenceOutput]]:
    """The outputs without word of what was found in the cache, which depends on who came before."""
    return {name: [structs.replace(one, num_cached=0) for one in got] for name, got in outputs.items()}
