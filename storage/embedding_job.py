"""Specs and results of embedding jobs: token ids in, one vector or score for each input out, and no log of tokens."""

import msgspec

from storage.contract import JobSpec, PriorityQueue, Result, priority_queue_of

# Bytes of one number of a vector: a little-endian float32.
NUMBER_BYTES = 4


class EmbeddingSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What an encoder runs.

    inputs:        [num_inputs][num_tokens] token ids, none empty
    second_starts: where the second text of each input begins, for models that read pairs; empty where all are single
    pairs:         (first, second) inputs whose cosine is the result; empty where the result is the outputs themselves
    dimensions:    leading numbers kept of each vector, which is then made a unit vector again; None keeps all
    is_normalized: whether vectors are made unit vectors; None as the model says
    priority:      lower goes first in the engine
    """

    inputs: tuple[tuple[int, ...], ...]
    second_starts: tuple[int, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    dimensions: int | None = None
    is_normalized: bool | None = None
    priority: int = 0

    @property
    def priority_queue(self) -> PriorityQueue:
        """The priority queue of the job's tickets."""
        return priority_queue_of(self.priority)


class EmbeddingResult(Result, frozen=True, kw_only=True):
    """The outputs of an embedding job; `entries` stays empty.

    dimensions: numbers of each output; 0 of a job that has none
    numbers:    [num_outputs, dimensions] little-endian float32
    """

    dimensions: int = 0
    numbers: bytes = b""


AnySpec = JobSpec | EmbeddingSpec
