"""The store: SQLAlchemy Core and Alembic on SQLite or PostgreSQL. `Store` is all that roles need."""

from voicethere.adapters.store.records import (
    CommittedBatch,
    DeadLetter,
    ErrorPage,
    KeyRecord,
    RetentionDone,
    SessionRecord,
    StoreConflict,
    StoreUnavailable,
    Suppression,
    WaitingPlace,
)
from voicethere.adapters.store.store import Store

__all__ = [
    "CommittedBatch",
    "DeadLetter",
    "ErrorPage",
    "KeyRecord",
    "RetentionDone",
    "SessionRecord",
    "Store",
    "StoreConflict",
    "StoreUnavailable",
    "Suppression",
    "WaitingPlace",
]
