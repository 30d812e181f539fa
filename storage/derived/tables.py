"""Tables that database triggers derive from `job`. Migrations 0010 and 0017 define the triggers."""

from sqlalchemy import BigInteger, Column
from sqlmodel import Field, SQLModel

from storage.contract import PriorityQueue
from storage.database.columns import EnumText


class QueueCount(SQLModel, table=True):
    """Number of queued jobs of one owner in one priority queue of a model: the sum of `num_jobs` over all parts.

    part: always 0 on SQLite. On PostgreSQL each change is a row of its own, so that no transaction waits for the row
          of another; `queue_counts.compact` merges them
    """

    __tablename__ = "queue_count"

    served_model: str = Field(primary_key=True)
    priority_queue: PriorityQueue = Field(sa_column=Column(EnumText(PriorityQueue), primary_key=True))
    owner: str = Field(primary_key=True)
    part: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    num_jobs: int


class ChatMetadata(SQLModel, table=True):
    """A metadata pair of a stored chat completion: the index of metadata filters."""

    __tablename__ = "chat_metadata"

    owner: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    value: str = Field(primary_key=True)
    job_id: str = Field(primary_key=True, index=True)


class ResponseMetadata(SQLModel, table=True):
    """The same of a stored response."""

    __tablename__ = "response_metadata"

    owner: str = Field(primary_key=True)
    key: str = Field(primary_key=True)
    value: str = Field(primary_key=True)
    job_id: str = Field(primary_key=True, index=True)
