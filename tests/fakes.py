"""Fakes that obey the real protocols: a runner that foretells its tokens, and a queue that records."""

import struct
import time
from collections import deque
from dataclasses import dataclass

from storage.contract import JobSpec, PriorityQueue, SamplingParams
from storage.model_manifest import ModelManifest
from workers.engine.encoder_engine import EncodingRequest
from workers.engine.runner import Chunk, Ranked, StepOutput
from workers.engine.step_limits import EngineLimits
from workers.text.stream import TextFactory

EOS = 0
MAX_CONTEXT = 4096
# A prompt that holds one of these breaks the step, or samples a token that is not finite.
BREAKS_STEP = 8
NOT_FINITE = 9
_FIRST_WORD = 16
_NUM_WORDS = 64

LIMITS = EngineLimits(
    max_running=32,
    max_len=MAX_CONTEXT,
    num_blocks=32 * MAX_CONTEXT // 32,
    block_size=32,
    max_batch_tokens=512,
    vocab_size=MAX_CONTEXT,
    eos_token_ids=frozenset({EOS}),
)
MANIFEST = ModelManifest(
    model="fake",
    context_length=MAX_CONTEXT,
    tokenizer_json="{}",
    chat_template=None,
    special_tokens={},
    capabilities={"completion": True, "chat": False},
)
TEXT = TextFactory(decode=lambda ids: "".join(f" w{token_id}" for token_id in ids), spoken=range(1, MAX_CONTEXT))


def prompt(num_tokens: int, *, salt: int = 3, mark: int = 7) -> tuple[int, ...]:
    """A prompt after which the fake model says `num_tokens` words and ends.

    salt: other words for another salt; mark: BREAKS_STEP or NOT_FINITE make the prompt a bad one
    """
    return (num_tokens + 1, 4, salt, mark)


def spec(num_tokens: int, *, salt: int = 3, num_choices: int = 1, max_tokens: int = 2000) -> JobSpec:
    """A job of one prompt."""
    sampling = SamplingParams(max_tokens=max_tokens, seed=11)
    return JobSpec(prompts=(prompt(num_tokens, salt=salt),), sampling=sampling, num_choices=num_choices)


def bad_spec(mark: int) -> JobSpec:
    """A job whose prompt is marked BREAKS_STEP or NOT_FINITE."""
    return JobSpec(prompts=(prompt(5, mark=mark),), sampling=SamplingParams(max_tokens=10))


def foretold(num_tokens: int, *, salt: int = 3, seed: int = 11) -> str:
    """The text that the fake model says to `prompt(num_tokens, salt=salt)`."""
    return "".join(f" w{_word(salt, seed, position)}" for position in range(num_tokens))


class FakeEncoder:
    """An encoder whose vector of a text is its length and the sum of its ids, and 1.

    batches: the ids of each call's texts
    step_s:  how long a step computes
    """

    def __init__(self, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self.batches: list[list[tuple[int, ...]]] = []

    def encode(self, batch: list[EncodingRequest]) -> list[bytes | None]:
        """A text that begins with BREAKS_STEP raises, one that begins with NOT_FINITE has no vector."""
        self.batches.append([request.token_ids for request in batch])
        if self.step_s:
            time.sleep(self.step_s)
        if any(request.token_ids[0] == BREAKS_STEP for request in batch):
            raise RuntimeError("a broken step")
        return [None if request.token_ids[0] == NOT_FINITE else self.vector_of(request.token_ids) for request in batch]

    @staticmethod
    def vector_of(token_ids: tuple[int, ...]) -> bytes:
        """What `encode` makes of a text."""
        return struct.pack("<3f", len(token_ids), sum(token_ids), 1.0)


@dataclass(frozen=True, slots=True)
class FakePart:
    """A chunk as it was when it was launched; its lists are not the engine's.

    blocks:      as many of its table as hold positions before its end
    ids:         the ids to store, None for one that the launch before samples
    following:   the prompt ids behind each of them
    is_breaking: whether its prompt is marked BREAKS_STEP
    """

    chunk: Chunk
    blocks: list[int]
    ids: list[int | None]
    following: list[int]
    is_breaking: bool


class FakeRunner:
    """A model whose cache holds ids, and whose next token is a plain function of the ids it finds there.

    It computes as late as it may: what a launch reads is what its blocks hold when it is collected.

    step_s:    how long a step computes
    num_ahead: launches under way beyond the one that is collected
    """

    def __init__(self, step_s: float = 0.0, *, limits: EngineLimits = LIMITS, num_ahead: int = 0) -> None:
        self.step_s = step_s
        self.num_ahead = num_ahead
        self.num_steps = 0
        self.num_resets = 0
        self.is_unusable = False
        self.limits = limits
        self.memory = [[0] * limits.block_size for _ in range(limits.num_blocks)]
        self.under_way: deque[list[FakePart]] = deque()
        self._last_by_sequence: dict[str, int] = {}

    def launch(self, chunks: list[Chunk]) -> None:
        """Note what is to be computed."""
        assert len(self.under_way) <= self.num_ahead
        self.under_way.append([self._part(chunk) for chunk in chunks])

    def collect(self) -> StepOutput:
        """The tokens of the oldest launch; raises for a prompt that is marked so, after the cache was written."""
        self.num_steps += 1
        parts = self.under_way.popleft()
        if self.step_s:
            time.sleep(self.step_s)
        for part in parts:
            self._store(part)
        if any(part.is_breaking for part in parts):
            raise RuntimeError("a broken step")
        token_ids = [self._sampled(part) for part in parts]
        self._last_by_sequence = {
            part.chunk.sequence_id: sampled[-1] if sampled else 0
            for part, sampled in zip(parts, token_ids, strict=True)
        }
        return StepOutput(
            token_ids=token_ids,
            logprobs=self._logprobs(parts, token_ids),
            prompt_logprobs=self._prompt_logprobs(parts),
        )

    def _sampled(self, part: FakePart) -> tuple[int, ...] | None:
        ids = self.read(part)
        found = [
            self.next_token(part, ids[: position + 1]) for position in range(part.chunk.logits_from, part.chunk.end)
        ]
        return None if None in found else tuple(one for one in found if one is not None)

    def clear(self, blocks: list[int]) -> None:
        """Forget what the blocks hold."""
        assert not {block for parts in self.under_way for part in parts for block in part.blocks} & set(blocks)
        for block in blocks:
            self.memory[block] = [0] * self.limits.block_size

    def reset(self) -> None:
        """Forget everything."""
        self.num_resets += 1
        if self.is_unusable:
            raise RuntimeError("the device is lost")
        self.under_way.clear()
        self.memory = [[0] * self.limits.block_size for _ in self.memory]

    def read(self, part: FakePart) -> list[int]:
        """All ids of a sequence, as its blocks hold them."""
        ids: list[int] = []
        for block in part.blocks:
            ids += self.memory[block]
        return ids[: part.chunk.end]

    def next_token(self, part: FakePart, ids: list[int]) -> int | None:
        """The foretold token of a sequence whose cache holds `ids`."""
        num_output_to_end, num_prompt, salt, mark = ids[:4]
        position = len(ids) - num_prompt
        if mark == NOT_FINITE:
            return None
        return EOS if position + 1 == num_output_to_end else _word(salt, part.chunk.sampling.seed, position)

    def _store(self, part: FakePart) -> None:
        for position, token_id in enumerate(part.ids, part.chunk.start):
            index, offset = divmod(position, self.limits.block_size)
            known = self._last_by_sequence[part.chunk.sequence_id] if token_id is None else token_id
            self.memory[part.blocks[index]][offset] = known

    def _part(self, chunk: Chunk) -> FakePart:
        return FakePart(
            chunk=chunk,
            blocks=list(chunk.blocks[: -(-chunk.end // self.limits.block_size)]),
            ids=[None] if chunk.is_pending else list(chunk.tokens[chunk.start : chunk.end]),
            following=list(chunk.tokens[chunk.start + 1 : min(chunk.end + 1, chunk.num_prompt)]),
            is_breaking=len(chunk.tokens) > 3 and chunk.tokens[3] == BREAKS_STEP,
        )

    def _logprobs(
        self, parts: list[FakePart], token_ids: list[tuple[int, ...] | None]
    ) -> dict[int, tuple[Ranked, ...]]:
        return {
            place: tuple(
                ranked(self.read(part)[: position + 1], token_id, num_top)
                for position, token_id in enumerate(sampled, part.chunk.logits_from)
            )
            for place, (part, sampled) in enumerate(zip(parts, token_ids, strict=True))
            if (num_top := part.chunk.sampling.logprobs) is not None and sampled
        }

    def _prompt_logprobs(self, parts: list[FakePart]) -> dict[int, list[Ranked]]:
        return {
            place: [
                ranked(self.read(part)[:position], token_id, num_top)
                for position, token_id in enumerate(part.following, part.chunk.start + 1)
            ]
            for place, part in enumerate(parts)
            if (num_top := part.chunk.sampling.prompt_logprobs) is not None
        }


def ranked(before: list[int], token_id: int, num_top: int) -> Ranked:
    """What the fake model tells of a token behind `before`: it is always the likeliest, the ids above follow."""
    logprob = -(sum(before) % 16) / 16
    return Ranked(token_id, logprob, tuple((token_id + i, logprob - i) for i in range(num_top)))


class FakeQueue:
    """Records tickets instead of sending them."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []
        self.priority_queues: list[PriorityQueue] = []

    def send(self, job_id: str, model: str, priority_queue: PriorityQueue) -> None:
        """Note the ticket."""
        self.sent.append((job_id, model))
        self.priority_queues.append(priority_queue)


def _word(salt: int, seed: int, position: int) -> int:
    return _FIRST_WORD + (salt * 31 + seed % 97 + position * 7) % _NUM_WORDS
