"""Files as JSON. Source of the shapes: openai SDK 3.52.0, `client.files`."""

from storage.files.stored_files import StoredFile


def file_object(file: StoredFile) -> dict[str, object]:
    """A file. It is processed at once: `wait_for_processing` of the SDK returns."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_at.timestamp()),
        "expires_at": None if file.expires_at is None else int(file.expires_at.timestamp()),
        "filename": file.filename,
        "purpose": file.purpose.value,
        "status": "processed",
        "status_details": None,
    }


def deleted_file(file_id: str) -> dict[str, object]:
    """The answer to a DELETE."""
    return {"id": file_id, "object": "file", "deleted": True}
