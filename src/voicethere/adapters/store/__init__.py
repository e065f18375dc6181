"""The store: SQLAlchemy Core and Alembic on SQLite (PostgreSQL later). `Store` is all that roles need."""

from voicethere.adapters.store.records import (
    CommittedBatch,
    DeadLetter,
    ErrorPage,
    KeyRecord,
    SessionRecord,
    StoreConflict,
    StoreUnavailable,
)
from voicethere.adapters.store.store import Store

__all__ = [
    "CommittedBatch",
    "DeadLetter",
    "ErrorPage",
    "KeyRecord",
    "SessionRecord",
    "Store",
    "StoreConflict",
    "StoreUnavailable",
]
