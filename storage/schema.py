"""Every table of the platform, for those who make a schema or compare two."""

from sqlalchemy import MetaData
from sqlmodel import SQLModel

from storage import tables, webhook_tables

# A table is known once its file was read.
FILES = (tables, webhook_tables)
METADATA: MetaData = SQLModel.metadata
