"""One attempt at one embedding job: its texts, the outputs of those that were encoded, and its result.

The outputs stay in this process until the result is committed; the log of such a job has a START and an END.
"""

import math
import sys
from array import array
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial

from llguidance import LLMatcher

from storage.contract import Failure, JobStatus, Result, TokenEvent, Usage
from storage.embedding_job import NUMBER_BYTES, AnySpec, EmbeddingResult, EmbeddingSpec
from workers.engine.encoder_engine import EncodingRequest
from workers.engine.sequence import SequenceOutput
from workers.generation.pipeline.job_generation import NOTHING, Generation
from workers.generation.pipeline.logprob_bytes import TokenBytes

_NOT_A_GENERATOR = Failure(code="model_capability_missing", message="The model makes embeddings and generates no text.")
_NO_INPUTS = EmbeddingSpec(inputs=())


class Encoding(Generation):
    """An embedding job on this worker; each of its inputs is what a choice is to a generation."""

    __slots__ = ("_asked", "_outputs", "_result")

    def __init__(self, job_id: str, clock: Callable[[], datetime] = partial(datetime.now, UTC)) -> None:
        super().__init__(job_id, clock)
        self._asked = _NO_INPUTS
        self._outputs: dict[int, bytes] = {}
        self._result: EmbeddingResult | None = None

    def begin(self, attempt: int, spec: AnySpec, cache_salt: str = "") -> None:
        """As `Generation.begin`."""
        super().begin(attempt, NOTHING, cache_salt)
        if isinstance(spec, EmbeddingSpec):
            self._asked = spec
        else:
            self.fail(_NOT_A_GENERATOR)

    def sequence_ids(self) -> list[str]:
        """The engine's names for every input."""
        return [self.sequence_id(number) for number in range(len(self._asked.inputs))]

    def engine_requests(self, new_matcher: Callable[[], LLMatcher | None]) -> Sequence[tuple[int, EncodingRequest]]:
        """Every input; a later attempt begins anew."""
        asked = self._asked
        return [
            (
                number,
                EncodingRequest(
                    sequence_id=self.sequence_id(number),
                    job=self.job_id,
                    token_ids=token_ids,
                    second_start=asked.second_starts[number] if asked.second_starts else None,
                    dimensions=asked.dimensions,
                    is_normalized=asked.is_normalized,
                    priority=asked.priority,
                ),
            )
            for number, token_ids in enumerate(asked.inputs)
        ]

    def event_of(self, choice: int, output: SequenceOutput, token_bytes: Callable[[], TokenBytes]) -> TokenEvent | None:
        """Keep the output; it is no token event."""
        if output.vector is not None:
            if self.first_token_at is None:
                self.first_token_at = self._clock()
            self._outputs[choice] = output.vector
            if self.failure is None and self.is_finished:
                # Thousands of cosines take a while, in which a commit would hold up everybody's.
                self._result = self._whole_result()
        return None

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to encode."""
        return self.failure is not None or len(self._outputs) == len(self._asked.inputs)

    @property
    def status(self) -> JobStatus:
        """The finished job's status, unless it was cancelled."""
        return JobStatus.COMPLETED if self.failure is None else JobStatus.FAILED

    def result(self) -> Result:
        """The outputs in the order of the inputs, or the cosines of the pairs; nothing of a job that is not whole."""
        if self.failure is not None or self._result is None:
            return EmbeddingResult()
        return self._result

    def _whole_result(self) -> EmbeddingResult:
        outputs = [self._outputs[number] for number in range(len(self._asked.inputs))]
        if self._asked.pairs:
            outputs = _cosines(outputs, self._asked.pairs)
        return EmbeddingResult(dimensions=len(outputs[0]) // NUMBER_BYTES, numbers=b"".join(outputs))

    def usage(self) -> Usage:
        """Tokens of the inputs that were read."""
        return Usage(
            prompt_tokens=sum(len(self._asked.inputs[number]) for number in self._outputs), completion_tokens=0
        )


def _cosines(vectors: Sequence[bytes], pairs: Sequence[tuple[int, int]]) -> list[bytes]:
    """The cosine of each pair, as a vector of one number."""
    numbers = [_floats(vector) for vector in vectors]
    lengths = [math.sqrt(_dot(one, one)) for one in numbers]
    return [
        _bytes(_dot(numbers[first], numbers[second]) / max(lengths[first] * lengths[second], 1e-12))
        for first, second in pairs
    ]


def _dot(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(map(float.__mul__, first, second))


def _floats(vector: bytes) -> list[float]:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _bytes(number: float) -> bytes:
    numbers = array("f", [number])
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
