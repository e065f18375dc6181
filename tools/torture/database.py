"""What the database says after a run, read past the platform: straight from PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
import psycopg
from psycopg.rows import dict_row

from tools.torture.chat_account import ConversationRow
from tools.torture.rows import Letter, Row, SessionRow

Found = TypeVar("Found", bound=msgspec.Struct)


class Database:
    """Each question on a connection of its own: the server may have been killed meanwhile."""

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self) -> Sequence[Row]:
        """Every stored error."""
        return self._all(
            "SELECT id, project_id, session_id, source, code, message, recoverable, occurred_at_ms "
            "FROM session_errors",
            Row,
        )

    def sessions(self) -> Sequence[SessionRow]:
        """Every session."""
        return self._all(
            "SELECT id, project_id, status, runner_id, end_reason, failed, ended_at_ms FROM sessions",
            SessionRow,
        )

    def letters(self) -> Sequence[Letter]:
        """Every dead letter."""
        return self._all(
            "SELECT problem, encode(substr(data, 1, 400), 'escape') AS data FROM dead_letters", Letter
        )

    def conversations(self) -> Sequence[ConversationRow]:
        """Every conversation, with its entities."""
        return self._all(
            "SELECT c.id, c.project_id, c.session_open, c.streams, "
            "(SELECT count(*) FROM conversation_prompts p "
            " WHERE p.project_id = c.project_id AND p.conversation_id = c.id) AS waiting, "
            "(SELECT coalesce(json_agg(json_build_object("
            "   'id', e.id, 'kind', e.kind, 'position', e.position, 'props', e.props::json"
            " )), '[]') FROM conversation_entities e "
            " WHERE e.project_id = c.project_id AND e.conversation_id = c.id) AS entities "
            "FROM conversations c",
            ConversationRow,
        )

    def suppressed(self) -> int:
        """How many errors were counted and not stored."""
        return int(self._one("SELECT coalesce(sum(count), 0) AS n FROM error_suppressions")["n"])

    def open_sessions(self) -> int | None:
        """How many sessions have no end, or a conversation that has not heard of it; None while the database
        does not answer."""
        try:
            return int(
                self._one(
                    "SELECT count(*) AS n FROM sessions WHERE ended_at_ms IS NULL OR id IN "
                    "(SELECT session_id FROM conversations WHERE session_open)"
                )["n"]
            )
        except psycopg.Error:
            return None

    def _one(self, query: str) -> dict[str, Any]:
        return self._ask(query)[0]

    def _all(self, query: str, kind: type[Found]) -> Sequence[Found]:
        return [msgspec.convert(row, kind) for row in self._ask(query)]

    def _ask(self, query: str) -> list[dict[str, Any]]:
        with psycopg.connect(self._url, connect_timeout=5, row_factory=dict_row) as connection:
            return connection.execute(query).fetchall()
