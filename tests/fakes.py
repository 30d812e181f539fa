"""Fakes that obey the real protocols: a runner that foretells its tokens, and a queue that records."""

import time

from storage.contract import JobSpec, ModelCard, SamplingParams
from workers.engine.limits import EngineLimits
from workers.engine.runner import Chunk
from workers.text.stream import TextFactory

EOS = 0
MAX_CONTEXT = 4096
# A prompt that holds one of these breaks the step, or draws a token that is not finite.
BREAKS_STEP = 8
NOT_FINITE = 9
_FIRST_WORD = 16
_NUM_WORDS = 64

LIMITS = EngineLimits(
    num_rows=32, max_len=MAX_CONTEXT, max_batch_tokens=512, vocab_size=MAX_CONTEXT, eos_token_ids=frozenset({EOS})
)
CARD = ModelCard(
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


class FakeRunner:
    """A model whose next token is a plain function of prompt, seed and position.

    step_s: how long a step computes
    """

    def __init__(self, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self.num_steps = 0
        self.num_resets = 0
        self.is_unusable = False

    def step(self, chunks: list[Chunk]) -> list[int | None]:
        """The foretold token of every sampled chunk; raises for a prompt that is marked so."""
        self.num_steps += 1
        if self.step_s:
            time.sleep(self.step_s)
        if any(chunk.tokens[3] == BREAKS_STEP for chunk in chunks):
            raise RuntimeError("a broken step")
        return [self._next(chunk) for chunk in chunks if chunk.is_sampled]

    def release(self, row: int, last: int) -> None:
        """Nothing is kept."""

    def reset(self) -> None:
        """Nothing is kept."""
        self.num_resets += 1
        if self.is_unusable:
            raise RuntimeError("the device is lost")

    @staticmethod
    def _next(chunk: Chunk) -> int | None:
        num_output_to_end, num_prompt, salt, mark = chunk.tokens[:4]
        position = len(chunk.tokens) - num_prompt
        if mark == NOT_FINITE:
            return None
        return EOS if position + 1 == num_output_to_end else _word(salt, chunk.sampling.seed, position)


class FakeQueue:
    """Records tickets instead of sending them."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str]] = []

    def send(self, job_id: str, model: str) -> None:
        """Note the ticket."""
        self.sent.append((job_id, model))


def _word(salt: int, seed: int, position: int) -> int:
    return _FIRST_WORD + (salt * 31 + seed % 97 + position * 7) % _NUM_WORDS
