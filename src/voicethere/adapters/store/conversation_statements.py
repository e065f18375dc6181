"""The statements with which conversations are changed, built once: building one costs more than running it.

Knows tables and dialects; what the rows mean is `conversation_changes`'.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from sqlalchemy import Connection, and_, bindparam, select, update

from voicethere.adapters.store.columns import NamedRows, insert_into
from voicethere.adapters.store.tables import conversation_entities, conversations

COUNTERS = (
    "version",
    "seq",
    "session_id",
    "session_open",
    "outputs",
    "previous_session_id",
    "previous_outputs",
    "arrivals",
)
_WRITTEN = (*COUNTERS, "streams", "finished", "content_bytes", "updated_at_ms")
_KEY = ("project_id", "id")
_ENTITY = ("project_id", "conversation_id", "id")
_FIRST_KEPT = frozenset({*_ENTITY, "position", "author", "created_at_ms"})


class Statements:
    """For one dialect. `hold` locks and reads the conversations that `keys` name, in one order for all;
    `entities` reads the entities that `identities` name. `keep_entity` takes rows of all columns; `keep` a
    conversation's `of_project` and `of_id`, and what it becomes with `new_` before each name."""

    def __init__(self, dialect: str) -> None:
        self.keys = NamedRows(dialect, _KEY)
        named = self.keys.rows.c
        self.hold = (
            select(conversations)
            .join(self.keys.rows, and_(*(conversations.c[name] == named[name] for name in _KEY)))
            .order_by(conversations.c.project_id, conversations.c.id)
            .with_for_update(of=conversations)
        )
        self.identities = NamedRows(dialect, _ENTITY)
        named = self.identities.rows.c
        self.entities = select(conversation_entities).join(
            self.identities.rows, and_(*(conversation_entities.c[name] == named[name] for name in _ENTITY))
        )
        insert = insert_into(dialect, conversation_entities)
        excluded = insert.excluded
        self.keep_entity = insert.on_conflict_do_update(
            index_elements=list(_ENTITY),
            set_={
                column.name: excluded[column.name]
                for column in conversation_entities.c
                if column.name not in _FIRST_KEPT
            },
        )
        self.keep = (
            update(conversations)
            .where(
                conversations.c.project_id == bindparam("of_project"),
                conversations.c.id == bindparam("of_id"),
            )
            .values({name: bindparam(f"new_{name}") for name in _WRITTEN})
        )


_STATEMENTS: Mapping[str, Statements] = MappingProxyType(
    {dialect: Statements(dialect) for dialect in ("sqlite", "postgresql")}
)


def statements(connection: Connection) -> Statements:
    """Those of the connection's dialect."""
    return _STATEMENTS[connection.dialect.name]
