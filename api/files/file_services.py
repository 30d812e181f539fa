"""File services: what the routes of files need."""

from dataclasses import dataclass

from starlette.requests import Request

from api.caches.database_access import DatabaseAccess
from api.files.downloads import Downloads
from api.files.uploads import Uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class FileServices:
    """The database, and the transfers of contents."""

    database: DatabaseAccess
    uploads: Uploads
    downloads: Downloads

    def stop(self) -> None:
        """Wait for what is being written; for threads."""
        self.downloads.stop()
        self.uploads.stop()


def files_of(request: Request) -> FileServices:
    """The file services of this process."""
    services = request.scope["app"].state.files
    assert isinstance(services, FileServices)
    return services
