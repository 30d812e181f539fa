"""`/v1/files`: upload, list, read, download, delete."""

from datetime import UTC, datetime
from functools import partial

import msgspec
from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from api.dependencies import Query, caller_of, no_query
from api.files.downloads import ContentReply
from api.files.file_objects import deleted_file, file_object
from api.files.file_services import files_of
from api.jobs.replies import encoded_reply, json_reply
from api.lean_route import LeanRoute
from api.protocol.shared.lists import list_object
from storage.errors import InvalidRequest
from storage.files import stored_files
from storage.files.stored_files import MAX_PAGE, StoredFile
from storage.files.tables import FilePurpose

router = APIRouter(prefix="/v1/files", tags=["files"], route_class=LeanRoute)


@router.post("")
async def create(request: Request) -> Response:
    """Upload a file, as multipart/form-data with `purpose`, `file` and perhaps `expires_after`."""
    no_query(request)
    return json_reply(file_object(await files_of(request).uploads.receive(request, caller_of(request).project)))


@router.get("")
async def list_files(request: Request) -> Response:
    """List files, the newest first."""
    query = Query(request, "after", "limit", "order", "purpose", ignores_unknown=True)
    page = query.get_page(order="desc", default_limit=MAX_PAGE, max_limit=MAX_PAGE, id_prefix="file-")
    purpose = _purpose_of(query.get_text("purpose"))
    owner, now = caller_of(request).project, datetime.now(UTC)

    def read(connection: Connection) -> bytes:
        found = stored_files.list_files(
            connection,
            owner,
            now,
            after=page.after,
            limit=page.limit + 1,
            is_newest_first=page.is_newest_first,
            purpose=purpose,
        )
        # A page may have thousands of files, so it is encoded here, in a thread.
        return msgspec.json.encode(
            list_object(list(map(file_object, found[: page.limit])), has_more=len(found) > page.limit)
        )

    return encoded_reply(await files_of(request).database.reads.search(read))


@router.get("/{file_id}")
async def retrieve(request: Request, file_id: str) -> Response:
    """Read a file's description."""
    return json_reply(file_object(await _get(request, file_id)))


@router.get("/{file_id}/content")
async def retrieve_content(request: Request, file_id: str) -> Response:
    """Download a file's content."""
    return ContentReply(files_of(request).downloads, await _get(request, file_id))


@router.delete("/{file_id}")
async def delete(request: Request, file_id: str) -> Response:
    """Delete a file. One that an unfinished batch reads cannot be deleted."""
    no_query(request)
    owner, now = caller_of(request).project, datetime.now(UTC)
    await files_of(request).database.write_promptly(
        lambda connection: stored_files.delete_file(connection, file_id, owner, now)
    )
    return json_reply(deleted_file(file_id))


async def _get(request: Request, file_id: str) -> StoredFile:
    query = partial(stored_files.get, file_id=file_id, owner=caller_of(request).project, now=datetime.now(UTC))
    return await files_of(request).database.reads.ask(query)


def _purpose_of(value: str | None) -> FilePurpose | None:
    if value is not None and value not in list(FilePurpose):
        raise InvalidRequest(f"Invalid 'purpose': it must be one of {', '.join(FilePurpose)}.", param="purpose")
    return None if value is None else FilePurpose(value)
