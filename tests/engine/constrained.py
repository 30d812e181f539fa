"""Grammars over the letters of the engine's fake vocabulary, a runner that obeys masks, and what it must then say."""

from collections import deque
from types import SimpleNamespace

from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from storage.contract import FinishReason
from tests.engine.checked import EOS, LIMITS, VOCAB_SIZE, CheckedRunner, request
from tests.fakes import FakePart
from workers.constraint.mask_buffer import MaskBuffer
from workers.engine.runner import Chunk, StepOutput
from workers.engine.sampling_seed import position_key
from workers.engine.sequence import SequenceRequest
from workers.engine.step_limits import EngineLimits


class _Letters(SimpleNamespace):
    def __call__(self, text: str) -> list[int]:
        return [ord(letter) - 64 for letter in text]


TOKENIZER = LLTokenizer(
    TokenizerWrapper(
        _Letters(
            eos_token_id=EOS,
            bos_token_id=None,
            tokens=[bytes([64 + token_id]) for token_id in range(VOCAB_SIZE)],
            special_token_ids=[EOS],
        )
    ),
    n_vocab=VOCAB_SIZE,
    eos_token=[EOS],
)
GRAMMARS = (
    'start: "ABC" /[D-G]{2,6}/ "HIJ" /[a-d]*/',
    "start: /(AB|CD)+/",
    'start: "A" | "AB" start',
    "start: /[A-Z]{0,30}/",
)


def matcher(grammar: str) -> LLMatcher:
    """A matcher of a Lark grammar; letters are tokens."""
    made = LLMatcher(TOKENIZER, grammar, log_level=0)
    assert not made.is_error(), made.get_error()
    return made


def constrained(sequence_id: str, grammar: str, **changes: object) -> SequenceRequest:
    """As `request`, with a grammar."""
    return request(sequence_id, **{"max_tokens": 24, "matcher": matcher(grammar), **changes})  # type: ignore[arg-type]


def likeliest(allowed: list[int], tokens: list[int], seed: int) -> int:
    """What the model says when it may say these: a function of all tokens, the seed and the position."""
    mixed = 0
    for token_id in tokens:
        mixed = (mixed * 31 + token_id + 1) % 1_000_003
    mixed += position_key(seed, len(tokens))[0]
    return max(allowed, key=lambda token_id: ((token_id + 1) * (mixed % 10_007) * 7919 % 10_007, token_id))


def bits_of(words: bytes) -> list[int]:
    """The ids that a packed mask allows."""
    number = int.from_bytes(words, "little")
    return [token_id for token_id in range(VOCAB_SIZE) if number >> token_id & 1]


class ConstrainedRunner(CheckedRunner):
    """Samples what masks allow, the way `likeliest` says; rows without a mask as its parent does."""

    def __init__(self, limits: EngineLimits = LIMITS, num_ahead: int = 0) -> None:
        super().__init__(limits, num_ahead)
        self._allowed: deque[dict[str, list[int]]] = deque()

    def launch(self, chunks: list[Chunk]) -> None:
        """Compute the masks, and launch."""
        buffer = MaskBuffer(VOCAB_SIZE)
        allowed = {}
        for chunk in chunks:
            if chunk.mask is not None and chunk.num_logits:
                with self._noted():
                    assert chunk.num_logits == 1
                    assert not chunk.is_pending
                buffer.fill([chunk.mask])
                allowed[chunk.sequence_id] = bits_of(buffer.words(1).tobytes())
        self._allowed.append(allowed)
        super().launch(chunks)

    def collect(self) -> StepOutput:
        """The tokens of the oldest launch."""
        try:
            return super().collect()
        finally:
            self._allowed.popleft()

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._allowed.clear()

    def next_token(self, part: FakePart, ids: list[int]) -> int | None:
        """As `likeliest`; None where nothing is allowed."""
        token_id = super().next_token(part, ids)
        allowed = self._allowed[0].get(part.chunk.sequence_id)
        if token_id is None or allowed is None:
            return token_id
        return likeliest(allowed, ids, part.chunk.sampling.seed) if allowed else None


def expected_ids(grammar: str, one: SequenceRequest) -> tuple[list[int], FinishReason]:
    """Output ids of a request without stop strings and stop token ids, sampled one by one, and why they end."""
    state, sampling = matcher(grammar), one.sampling
    ids: list[int] = []
    while len(ids) < sampling.max_tokens:
        allowed = bits_of(state.compute_bitmask())
        others = [token_id for token_id in allowed if token_id != EOS]
        if others and (sampling.ignore_eos or len(ids) < sampling.min_tokens):
            allowed = others
        ids.append(likeliest(allowed, [*one.prompt, *ids], sampling.seed))
        if ids[-1] == EOS:
            return ids, FinishReason.STOP
        assert state.consume_token(ids[-1])
    return ids, FinishReason.LENGTH
