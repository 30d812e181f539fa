"""Lines of the output and the error file of a batch."""

import msgspec

from storage.ids import suffix_of

# Line separators of Unicode, escaped so that readers survive that split text there.
_SEPARATORS = ((b"\xe2\x80\xa8", b"\\u2028"), (b"\xe2\x80\xa9", b"\\u2029"), (b"\xc2\x85", b"\\u0085"))
_PREFIX = "batch_req_"
_encode = msgspec.json.Encoder().encode


def answered_line(request_id: str, custom_id: str, status_code: int, body: object) -> bytes:
    """The line of a request that had an HTTP answer, with its line feed.

    request_id: as `request_id_of` makes it
    """
    response = {"status_code": status_code, "request_id": request_id.removeprefix("batch_"), "body": body}
    return _line({"id": request_id, "custom_id": custom_id, "response": response, "error": None})


def unanswered_line(request_id: str, custom_id: str, code: str, message: str) -> bytes:
    """The line of a request that had none, with its line feed."""
    error = {"code": code, "message": message}
    return _line({"id": request_id, "custom_id": custom_id, "response": None, "error": error})


def request_id_of(batch_id: str, line: int) -> str:
    """The id of a batch's request: the random part of the batch's id, and the number of the line."""
    return f"{_PREFIX}{suffix_of(batch_id)}_{line}"


def line_of_request(request_id: str, batch_id: str) -> int | None:
    """The number of the line with this id; None for an id of no request of the batch."""
    number = request_id.removeprefix(f"{_PREFIX}{suffix_of(batch_id)}_")
    is_number = number.isascii() and number.isdigit() and len(number) < 10
    return int(number) if is_number and request_id_of(batch_id, int(number)) == request_id else None


def _line(value: dict[str, object]) -> bytes:
    encoded = _encode(value)
    for separator, escape in _SEPARATORS:
        encoded = encoded.replace(separator, escape)
    return encoded + b"\n"
