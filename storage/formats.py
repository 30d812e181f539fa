"""Formats of stored specs and results: a kind and a version beside the msgpack, so that both can change.

A row keeps the format in which it was written. Readers know every format of the past; a format of a later version of
this program is `FormatUnknown`, and a worker does not claim a job of one.
"""

import msgspec

from storage.contract import JobSpec, Result
from storage.errors import FormatUnknown

# The only kind until now: tokens generated from prompts.
GENERATION = "generation"
# Specs without an output format, and specs with one: a worker that knows no output formats must not run those as free
# text, so it claims only the others.
_PLAIN_SPEC, _FORMATTED_SPEC = 1, 2
RESULT_VERSION = 1

_encoder = msgspec.msgpack.Encoder()
_spec_decoder = msgspec.msgpack.Decoder(JobSpec)
_spec_decoder_by_format = {(GENERATION, version): _spec_decoder for version in (_PLAIN_SPEC, _FORMATTED_SPEC)}
_result_decoder_by_format = {(GENERATION, 1): msgspec.msgpack.Decoder(Result)}
# (kind, version) of every spec that this program can run.
SPEC_FORMATS = tuple(_spec_decoder_by_format)


def encode_spec(spec: JobSpec) -> tuple[int, bytes]:
    """A spec and the version of its format: the oldest whose readers do all that it asks."""
    return _PLAIN_SPEC if spec.output is None else _FORMATTED_SPEC, _encoder.encode(spec)


def decode_spec(kind: str, version: int, data: bytes) -> JobSpec:
    """A stored spec; FormatUnknown for one of a later version of this program."""
    decoder = _spec_decoder_by_format.get((kind, version))
    if decoder is None:
        raise FormatUnknown(f"a job spec of kind '{kind}', version {version}")
    return decoder.decode(data)


def encode_result(result: Result) -> bytes:
    """A result in the newest format of its kind."""
    return _encoder.encode(result)


def decode_result(kind: str, version: int, data: bytes) -> Result:
    """A stored result; FormatUnknown for one of a later version of this program."""
    decoder = _result_decoder_by_format.get((kind, version))
    if decoder is None:
        raise FormatUnknown(f"a job result of kind '{kind}', version {version}")
    return decoder.decode(data)
