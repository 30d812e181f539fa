"""The form of an upload: purpose and expiry are judged as soon as they are known, the file is written as it comes."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta

import msgspec

from storage.errors import FileTooLarge, InvalidRequest, UnsupportedParameter
from storage.files.file_writer import FileWriter
from storage.files.tables import FilePurpose

FILE = "file"
PURPOSE = "purpose"
ANCHOR = "expires_after[anchor]"
SECONDS = "expires_after[seconds]"
UPLOAD_PURPOSES = (FilePurpose.BATCH, FilePurpose.USER_DATA, FilePurpose.VISION)
# OpenAI's limits of `expires_after`, its size of a batch's input, and how long that is kept unless a request says.
MIN_LIFE_S, MAX_LIFE_S = 3600, 30 * 86400
BATCH_MAX_BYTES = 200 * 2**20
BATCH_LIFE_S = 30 * 86400
# What a form may have besides the file: boundaries, headers and fields.
FORM_BYTES = 64 * 1024

_FIELDS = (PURPOSE, ANCHOR, SECONDS)
_MAX_FIELD_BYTES = 64
_MAX_FILENAME_CHARACTERS = 255
# C0 and C1 controls, and the marks with which a name can be made to look like another one.
_BAD_IN_FILENAME = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What a form says of its file; `expires_at` None keeps it until it is deleted."""

    purpose: FilePurpose
    created_at: datetime
    expires_at: datetime | None


class UploadForm:
    """Takes the parts of a form, in any order, and writes its file. It blocks, so it is for threads.

    It raises InvalidRequest, UnsupportedParameter and FileTooLarge, and what the writer raises.
    """

    def __init__(
        self,
        begin_file: Callable[[str, Description], FileWriter],
        *,
        created_at: datetime,
        max_file_bytes: int,
        declared_bytes: int,
    ) -> None:
        """begin_file: makes the writer of a file of that name, described as far as the form has come

        declared_bytes: length of the body, 0 where it is not known
        """
        self._begin_file = begin_file
        self._created_at = created_at
        self._max_file_bytes = max_file_bytes
        self._declared_bytes = declared_bytes
        self._fields: dict[str, str] = {}
        self._name = ""
        self._value = bytearray()
        self.writer: FileWriter | None = None

    def begin(self, name: str, filename: str | None) -> None:
        """As `PartReader.begin`."""
        self._name = name
        if name == FILE:
            if self.writer is not None:
                raise InvalidRequest("The form has more than one file.", param=FILE)
            if filename is None:
                raise InvalidRequest("'file' must be a file: its part needs a filename.", param=FILE)
            self.writer = self._begin_file(checked_filename(filename), self._described())
        elif name not in _FIELDS:
            raise UnsupportedParameter(f"Unknown parameter: '{name}'.", param=name)
        elif name in self._fields:
            raise InvalidRequest(f"'{name}' is given twice.", param=name)
        elif filename is not None:
            raise InvalidRequest(f"'{name}' must be a text, not a file.", param=name)

    def data(self, data: memoryview) -> None:
        """As `PartReader.data`."""
        if self._name != FILE:
            if len(self._value) + len(data) > _MAX_FIELD_BYTES:
                raise InvalidRequest(f"'{self._name}' is too long.", param=self._name)
            self._value += data
            return
        assert self.writer is not None
        self._refuse_beyond_limit(self.writer.size_bytes + len(data))
        self.writer.write(data)

    def end(self) -> None:
        """As `PartReader.end`; a field is judged now."""
        if self._name == FILE:
            return
        value = self._value.decode("utf-8", "replace")
        self._value.clear()
        _refuse_value(self._name, value)
        self._fields[self._name] = value
        self._refuse_beyond_limit(self._declared_bytes - FORM_BYTES)

    def finish(self) -> tuple[FileWriter, Description]:
        """The writer, which is still to be closed, and what the whole form says of its file."""
        if self.writer is None:
            raise _missing(FILE)
        if PURPOSE not in self._fields:
            raise _missing(PURPOSE)
        if (ANCHOR in self._fields) != (SECONDS in self._fields):
            raise _missing(SECONDS if ANCHOR in self._fields else ANCHOR)
        self._refuse_beyond_limit(self.writer.size_bytes)
        return self.writer, self._described()

    def _described(self) -> Description:
        """What the form says so far. A file whose purpose is not yet known begins as user data."""
        purpose = FilePurpose(self._fields.get(PURPOSE, FilePurpose.USER_DATA))
        life_s = BATCH_LIFE_S if purpose is FilePurpose.BATCH else None
        if SECONDS in self._fields:
            life_s = int(self._fields[SECONDS])
        expires_at = None if life_s is None else self._created_at + timedelta(seconds=life_s)
        return Description(purpose=purpose, created_at=self._created_at, expires_at=expires_at)

    def _refuse_beyond_limit(self, num_bytes: int) -> None:
        is_batch = self._fields.get(PURPOSE) == FilePurpose.BATCH
        limit = min(BATCH_MAX_BYTES, self._max_file_bytes) if is_batch else self._max_file_bytes
        if num_bytes > limit:
            what = "A file of the purpose 'batch'" if is_batch else "A file"
            raise FileTooLarge(f"{what} has at most {limit} bytes.", param=FILE)


def checked_filename(filename: str) -> str:
    """The last component of the name; InvalidRequest for one that is empty, long or not printable."""
    name = re.split(r"[/\\]", filename)[-1].strip()
    if not name or name in (".", ".."):
        raise InvalidRequest("The filename is empty.", param=FILE)
    if len(name) > _MAX_FILENAME_CHARACTERS:
        raise InvalidRequest(f"The filename has more than {_MAX_FILENAME_CHARACTERS} characters.", param=FILE)
    if _BAD_IN_FILENAME.search(name):
        raise InvalidRequest("The filename has characters that are not printable.", param=FILE)
    return name


def _refuse_value(name: str, value: str) -> None:
    """Raise InvalidRequest for a wrong value of a field."""
    if name == PURPOSE and value not in UPLOAD_PURPOSES:
        expected = ", ".join(UPLOAD_PURPOSES)
        raise InvalidRequest(f"Invalid value for '{name}': expected one of {expected}.", param=name)
    if name == ANCHOR and value != "created_at":
        raise InvalidRequest(f"Invalid value for '{name}': expected 'created_at'.", param=name)
    if name == SECONDS:
        is_number = value.isascii() and value.isdigit() and len(value) < 10
        if not is_number or not MIN_LIFE_S <= int(value) <= MAX_LIFE_S:
            limits = f"from {MIN_LIFE_S} to {MAX_LIFE_S}"
            raise InvalidRequest(f"Invalid '{name}': it must be a whole number {limits}.", param=name)


def _missing(name: str) -> InvalidRequest:
    return InvalidRequest(f"Missing required parameter: '{name}'.", param=name)
