"""One line of a batch's input file: what it asks for, or why the whole batch fails.

A fault inside of the body is not found here: it is that line's own 400. Source of a line's form: OpenAI's batch guide.
"""

from collections.abc import Collection

import msgspec
from msgspec import UNSET, Raw, UnsetType

MAX_CUSTOM_ID = 512
# Of the beginning of a prompt, by which lines are sorted.
_BEGINNING_BYTES = 256
_FIELDS = ("custom_id", "method", "url", "body")


class BatchLine(msgspec.Struct, frozen=True, kw_only=True):
    """A line that may become a job.

    body:      JSON of the request's body, an object
    model:     that its body names; empty where it names none in a readable way
    beginning: the beginning of its prompt, near that of lines that share it
    """

    custom_id: str
    body: bytes
    model: str
    beginning: bytes


class LineFault(msgspec.Struct, frozen=True, kw_only=True):
    """Why a batch fails, as its `errors` tell it."""

    code: str
    message: str
    param: str | None = None


class _Envelope(msgspec.Struct, forbid_unknown_fields=True):
    custom_id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    url: Raw | UnsetType = UNSET
    body: Raw | UnsetType = UNSET


class _Beginning(msgspec.Struct):
    """The fields of a body by which lines are sorted; all others are passed over without being decoded."""

    model: Raw | UnsetType = UNSET
    instructions: Raw | UnsetType = UNSET
    messages: Raw | UnsetType = UNSET
    input: Raw | UnsetType = UNSET
    prompt: Raw | UnsetType = UNSET


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_beginning = msgspec.json.Decoder(_Beginning).decode
_decode_text = msgspec.json.Decoder(str).decode


def read_line(data: bytes, endpoint: str, endpoints: Collection[str]) -> BatchLine | LineFault:
    """The line in `data`, or its first fault.

    endpoint:  of the batch
    endpoints: all that a batch may have
    """
    try:
        data.decode()
        envelope = _decode_envelope(data)
    except (UnicodeDecodeError, RecursionError) as error:
        return LineFault(code="invalid_json_line", message=f"This line is not valid JSON: {error}.")
    except msgspec.ValidationError as error:
        return _fault_of_envelope(data, error)
    except msgspec.DecodeError as error:
        return LineFault(code="invalid_json_line", message=f"This line is not valid JSON: {error}.")
    for name in _FIELDS:
        if getattr(envelope, name) is UNSET:
            return LineFault(
                code="missing_required_parameter", message=f"This line has no '{name}', which is required.", param=name
            )
    assert not isinstance(envelope.body, UnsetType)
    custom_id = _text_of(envelope.custom_id)
    if custom_id is None or not 1 <= len(custom_id) <= MAX_CUSTOM_ID or "\0" in custom_id:
        message = f"'custom_id' must be a string of 1 to {MAX_CUSTOM_ID} characters without U+0000."
        return LineFault(code="invalid_custom_id", message=message, param="custom_id")
    return _fault_of_target(envelope, endpoint, endpoints) or _with_body(custom_id, bytes(envelope.body))


def _fault_of_envelope(data: bytes, error: msgspec.ValidationError) -> LineFault:
    """The fault of JSON that is no object, or that has an unknown field."""
    if data[:1] != b"{":
        return LineFault(code="invalid_json_line", message="This line is not a JSON object.")
    name = str(error).partition("`")[2].rpartition("`")[0][:100]
    return LineFault(code="unknown_parameter", message=f"This line has an unknown field '{name}'.", param=name)


def _fault_of_target(envelope: _Envelope, endpoint: str, endpoints: Collection[str]) -> LineFault | None:
    if _text_of(envelope.method) != "POST":
        return LineFault(code="invalid_method", message="'method' must be \"POST\".", param="method")
    url = _text_of(envelope.url)
    if url == endpoint:
        return None
    if url in endpoints:
        message = f"'url' is '{url}', and the batch's endpoint is '{endpoint}'."
        return LineFault(code="mismatched_endpoint", message=message, param="url")
    return LineFault(code="invalid_url", message=f"'url' must be '{endpoint}', the batch's endpoint.", param="url")


def _with_body(custom_id: str, body: bytes) -> BatchLine | LineFault:
    if body[:1] != b"{":
        return LineFault(code="invalid_json_line", message="'body' must be a JSON object.", param="body")
    fields = _decode_beginning(body)
    pieces = (fields.instructions, fields.messages, fields.input, fields.prompt)
    beginning = b"\0".join(bytes(piece)[:_BEGINNING_BYTES] for piece in pieces if not isinstance(piece, UnsetType))
    model = _text_of(fields.model) or ""
    return BatchLine(
        custom_id=custom_id,
        body=body,
        model="" if "\0" in model else model[:256],
        beginning=beginning[:_BEGINNING_BYTES],
    )


def _text_of(value: Raw | UnsetType) -> str | None:
    """The string that a field holds; None where it holds something else."""
    if isinstance(value, UnsetType):
        return None
    try:
        text = _decode_text(value)
        text.encode()  # a lone surrogate can be stored nowhere
    except (msgspec.DecodeError, UnicodeEncodeError):
        return None
    return text
