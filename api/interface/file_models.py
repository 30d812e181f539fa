"""Models of files for the OpenAPI schema. Forms are read and answers built by `api/files`, not by these classes."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.config import JsonDict

_BINARY: JsonDict = {"format": "binary"}


class FileUpload(BaseModel):
    """The form of an upload. `purpose` and `expires_after` first, so that they are judged before the file is read."""

    model_config = ConfigDict(extra="forbid")

    purpose: Literal["batch", "user_data", "vision"]
    anchor: Literal["created_at"] | None = Field(default=None, alias="expires_after[anchor]")
    seconds: int | None = Field(default=None, ge=3600, le=30 * 86400, alias="expires_after[seconds]")
    file: str = Field(json_schema_extra=_BINARY)


class FileObject(BaseModel):
    """A file, without its content."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "batch_output", "user_data", "vision"]
    status: Literal["processed"]
    status_details: None


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
