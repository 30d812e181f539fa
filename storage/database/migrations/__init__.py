"""The schema's history, applied by `storage.database.connections.migrate`."""
