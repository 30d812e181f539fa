"""A runner that holds the engine to its word, and the plain function that its tokens follow."""

from storage.contract import FinishReason, SamplingParams
from workers.engine.engine import Engine
from workers.engine.limits import EngineLimits
from workers.engine.runner import Chunk
from workers.engine.sampling_seed import position_key
from workers.engine.sequence import SequenceOutput, SequenceRequest
from workers.text.stream import TextFactory

EOS = 0
VOCAB_SIZE = 40
LIMITS = EngineLimits(num_rows=4, max_len=48, max_batch_tokens=7, vocab_size=VOCAB_SIZE, eos_token_ids=frozenset({EOS}))
# Ids are letters from "A" on; the end-of-sequence id has no text.
TEXT = TextFactory(decode=lambda ids: "".join(chr(64 + token_id) for token_id in ids), spoken=range(1, VOCAB_SIZE))


def next_token(tokens: list[int], seed: int) -> int:
    """What the model says: a function of the tokens, the seed and the position."""
    return (sum(tokens[-3:]) * 7 + position_key(seed, len(tokens))[0]) % VOCAB_SIZE


def expected_output(request: SequenceRequest) -> tuple[list[int], FinishReason]:
    """All output ids of a request without stop strings, emitted ones included, and why they end."""
    tokens = [*request.prompt, *request.emitted]
    while len(tokens) - len(request.prompt) < request.sampling.max_tokens:
        if len(tokens) > len(request.prompt) and tokens[-1] == EOS:
            break
        tokens.append(next_token(tokens, request.sampling.seed))
    output = tokens[len(request.prompt) :]
    return output, FinishReason.STOP if output[-1] == EOS else FinishReason.LENGTH


def request(sequence_id: str, num_prompt: int = 3, max_tokens: int = 8, **changes: object) -> SequenceRequest:
    """A request whose prompt is all ones; `changes` go to the request or to its sampling."""
    sampling = {name: changes.pop(name) for name in ("seed", "stop") if name in changes}
    return SequenceRequest(
        sequence_id=sequence_id,
        prompt=(1,) * num_prompt,
        sampling=SamplingParams(max_tokens=max_tokens, **sampling),  # type: ignore[arg-type]  # by name
        **changes,  # type: ignore[arg-type]  # by name
    )


class CheckedRunner:
    """Keeps what a cache would hold, and asserts that every chunk finds its own past in its row.

    breaking:   sequences whose steps raise
    not_finite: sequences whose logits are not finite
    num_faults: steps that will raise whatever is in them
    """

    def __init__(self, limits: EngineLimits = LIMITS) -> None:
        self.breaking: set[str] = set()
        self.not_finite: set[str] = set()
        self.num_faults = 0
        self.num_steps = 0
        self.batches: list[list[str]] = []
        self.rows: list[list[int]] = [[] for _ in range(limits.num_rows)]
        self._limits = limits

    def step(self, chunks: list[Chunk]) -> list[int | None]:
        """The next tokens; a failing step leaves half-written rows behind."""
        self.num_steps += 1
        self.batches.append([chunk.sequence_id for chunk in chunks])
        self._check(chunks)
        for chunk in chunks:
            self.rows[chunk.row] = list(chunk.tokens[: chunk.end])
        if self.num_faults:
            self.num_faults -= 1
            raise RuntimeError("this step fails")
        if self.breaking & set(self.batches[-1]):
            raise RuntimeError("a sequence breaks this step")
        return [self._next(chunk) for chunk in chunks if chunk.is_sampled]

    def release(self, row: int, last: int) -> None:
        """Move the last row into the freed one's place."""
        assert 0 <= row <= last < len(self.rows)
        self.rows[row] = self.rows[last]
        self.rows[last] = []

    def reset(self) -> None:
        """Forget all rows."""
        self.rows = [[] for _ in self.rows]

    def _next(self, chunk: Chunk) -> int | None:
        if chunk.sequence_id in self.not_finite:
            return None
        return next_token(list(chunk.tokens), chunk.sampling.seed)

    def _check(self, chunks: list[Chunk]) -> None:
        assert chunks
        assert sum(chunk.end - chunk.start for chunk in chunks) <= self._limits.max_batch_tokens
        assert len({chunk.row for chunk in chunks}) == len(chunks)
        for chunk in chunks:
            assert chunk.start < chunk.end <= len(chunk.tokens) <= self._limits.max_len
            assert self.rows[chunk.row] == list(chunk.tokens[: chunk.start])


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
