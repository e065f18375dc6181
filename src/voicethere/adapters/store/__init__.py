"""The store: SQLAlchemy Core and Alembic on SQLite or PostgreSQL. `Store` is all that roles need."""

from voicethere.adapters.store.records import (
    Accepted,
    CommittedBatch,
    ConversationRecord,
    DeadLetter,
    ErrorPage,
    HeldSession,
    KeyRecord,
    PendingPrompt,
    RetentionDone,
    SessionRecord,
    StoreConflict,
    StoreUnavailable,
    Suppression,
    Timeline,
    TooManyPrompts,
    WaitingPlace,
)
from voicethere.adapters.store.store import Store

__all__ = [
    "Accepted",
    "CommittedBatch",
    "ConversationRecord",
    "DeadLetter",
    "ErrorPage",
    "HeldSession",
    "KeyRecord",
    "PendingPrompt",
    "RetentionDone",
    "SessionRecord",
    "Store",
    "StoreConflict",
    "StoreUnavailable",
    "Suppression",
    "Timeline",
    "TooManyPrompts",
    "WaitingPlace",
]
