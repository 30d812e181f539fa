"""Every table of the platform, for those who make a schema or compare two."""

from sqlalchemy import MetaData
from sqlmodel import SQLModel

import storage.accounts.tables
import storage.fleet.tables
import storage.jobs.tables
import storage.webhooks.tables

# A table is known once its file was read.
FILES = (storage.accounts.tables, storage.fleet.tables, storage.jobs.tables, storage.webhooks.tables)
METADATA: MetaData = SQLModel.metadata
