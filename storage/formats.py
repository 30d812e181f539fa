"""Formats of stored specs and results: a kind and a version beside the msgpack, so that both can change.

A row keeps the format in which it was written. Readers know every format of the past; a format of a later version of
this program is `FormatUnknown`, and a worker does not claim a job of one.
"""

import msgspec

from storage.contract import JobSpec, Result
from storage.embedding_job import AnySpec, EmbeddingResult, EmbeddingSpec
from storage.errors import FormatUnknown

# Tokens generated from prompts, and vectors or scores of inputs.
GENERATION = "generation"
EMBEDDING = "embedding"
# Specs without an output format, and specs with one: a worker that knows no output formats must not run those as free
# text, so it claims only the others.
_PLAIN_SPEC, _FORMATTED_SPEC = 1, 2
# Specs of jobs of conversations: a worker that knows no conversations would end those without adding their items.
_TURN_SPEC = 3
_EMBEDDING_SPEC = 1
_RESULT_VERSION = 1

_encoder = msgspec.msgpack.Encoder()
_spec_decoder = msgspec.msgpack.Decoder(JobSpec)
_spec_decoder_by_format: dict[
    tuple[str, int], msgspec.msgpack.Decoder[JobSpec] | msgspec.msgpack.Decoder[EmbeddingSpec]
]
_spec_decoder_by_format = {
    (GENERATION, _PLAIN_SPEC): _spec_decoder,
    (GENERATION, _FORMATTED_SPEC): _spec_decoder,
    (GENERATION, _TURN_SPEC): _spec_decoder,
    (EMBEDDING, _EMBEDDING_SPEC): msgspec.msgpack.Decoder(EmbeddingSpec),
}
_result_decoder_by_format: dict[
    tuple[str, int], msgspec.msgpack.Decoder[Result] | msgspec.msgpack.Decoder[EmbeddingResult]
]
_result_decoder_by_format = {
    (GENERATION, _RESULT_VERSION): msgspec.msgpack.Decoder(Result),
    (EMBEDDING, _RESULT_VERSION): msgspec.msgpack.Decoder(EmbeddingResult),
}
# (kind, version) of every spec that this program can run.
SPEC_FORMATS = tuple(_spec_decoder_by_format)


def encode_spec(spec: AnySpec, *, is_turn: bool = False) -> tuple[str, int, bytes]:
    """A spec with kind and version of its format: the oldest whose readers do all that it asks.

    is_turn: whether its job is of a conversation
    """
    if isinstance(spec, EmbeddingSpec):
        return EMBEDDING, _EMBEDDING_SPEC, _encoder.encode(spec)
    version = _PLAIN_SPEC if spec.output is None else _FORMATTED_SPEC
    return GENERATION, _TURN_SPEC if is_turn else version, _encoder.encode(spec)


def decode_spec(kind: str, version: int, data: bytes) -> AnySpec:
    """A stored spec; FormatUnknown for one of a later version of this program."""
    decoder = _spec_decoder_by_format.get((kind, version))
    if decoder is None:
        raise FormatUnknown(f"a job spec of kind '{kind}', version {version}")
    return decoder.decode(data)


def result_format(result: Result | None) -> tuple[str, int]:
    """Kind and version of the newest format of such a result."""
    return EMBEDDING if isinstance(result, EmbeddingResult) else GENERATION, _RESULT_VERSION


def encode_result(result: Result) -> bytes:
    """A result in its `result_format`."""
    return _encoder.encode(result)


def decode_result(kind: str, version: int, data: bytes) -> Result:
    """A stored result; FormatUnknown for one of a later version of this program."""
    decoder = _result_decoder_by_format.get((kind, version))
    if decoder is None:
        raise FormatUnknown(f"a job result of kind '{kind}', version {version}")
    return decoder.decode(data)
