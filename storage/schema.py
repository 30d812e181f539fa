"""Every table of the platform, for creating and comparing schemas."""

from sqlalchemy import MetaData
from sqlmodel import SQLModel

import storage.accounts.tables
import storage.batches.tables
import storage.conversations.tables
import storage.derived.tables
import storage.files.tables
import storage.fleet.tables
import storage.jobs.tables
import storage.webhooks.tables

# Importing a file registers its tables.
FILES = (
    storage.accounts.tables,
    storage.conversations.tables,
    storage.batches.tables,
    storage.derived.tables,
    storage.files.tables,
    storage.fleet.tables,
    storage.jobs.tables,
    storage.webhooks.tables,
)
METADATA: MetaData = SQLModel.metadata
