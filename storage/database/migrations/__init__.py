"""The schema's history, applied by `storage.database.migration.migrate`."""
