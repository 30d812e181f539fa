"""What Alembic runs: on the connection that `migrate` hands over, or, from a shell, on the settings' database."""

from alembic import context
from sqlalchemy import Connection

from storage.database.connections import Database
from storage.schema import METADATA
from storage.settings import StorageSettings


def _run(connection: Connection) -> None:
    context.configure(
        connection=connection, target_metadata=METADATA, render_as_batch=connection.dialect.name == "sqlite"
    )
    with context.begin_transaction():
        context.run_migrations()


_handed_over = context.config.attributes.get("connection")
if isinstance(_handed_over, Connection):
    _run(_handed_over)
else:
    _database = Database(StorageSettings.read().database_url)
    with _database.begin() as _connection:
        _run(_connection)
    _database.dispose()
