"""Upgrades the database's schema and shows the progress. It imports alembic, so it is imported when it is needed."""

from api.cli.console import print_progress
from storage.database.migration import Progress, migrate


def upgrade_schema(database_url: str) -> None:
    """Bring the schema to the newest revision, with a line for each batch of rows that is moved."""
    migrate(database_url, on_progress=_print_progress)


def _print_progress(progress: Progress) -> None:
    share = progress.num_moved / progress.num_total
    print_progress(f"Moving jobs to new tables: {progress.num_moved:,} of {progress.num_total:,} ({share:.0%})")
