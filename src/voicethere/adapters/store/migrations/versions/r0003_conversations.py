"""Chat conversations: their counters, the entities of their timelines, the prompts that wait."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column to sessions; add three tables."""
    op.add_column("sessions", _text("conversation_id", nullable=True))
    _partial_index(
        "ix_sessions_conversation",
        "sessions",
        ["project_id", "conversation_id", "number"],
        "conversation_id IS NOT NULL",
    )
    _create_conversations()
    _create_entities()
    _create_prompts()
    _compress_faster()


def _partial_index(name: str, table: str, columns: list[str], condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, columns, sqlite_where=where, postgresql_where=where)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    kind = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(name, kind, nullable=nullable)


def _big(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), nullable=False)


def _of_conversation(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["project_id", "conversation_id"],
        ["conversations.project_id", "conversations.id"],
        name=op.f(f"fk_{table}_project_id_conversation_id"),
        ondelete="CASCADE",
    )


def _create_conversations() -> None:
    op.create_table(
        "conversations",
        _text("project_id"),
        _text("id"),
        _big("version"),
        _big("seq"),
        _text("session_id", nullable=True),
        _flag("session_open"),
        _big("outputs"),
        _text("previous_session_id", nullable=True),
        _big("previous_outputs"),
        _big("prompts"),
        _big("session_prompts"),
        _big("arrivals"),
        _big("content_bytes"),
        _flag("issued"),
        _big("expires_at_ms", nullable=True),
        _big("created_at_ms"),
        _big("updated_at_ms"),
        _text("streams"),
        _text("finished"),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_conversations")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_conversations_project_id"), ondelete="CASCADE"
        ),
    )
    op.create_index(
        op.f("ix_conversations_project_id_updated_at_ms"), "conversations", ["project_id", "updated_at_ms"]
    )
    _partial_index("ix_conversations_in_session", "conversations", ["session_id"], "session_open")


def _create_entities() -> None:
    op.create_table(
        "conversation_entities",
        _text("project_id"),
        _text("conversation_id"),
        _text("id"),
        _text("kind"),
        _text("author"),
        _big("position"),
        _big("version"),
        _big("created_at_ms"),
        _big("updated_at_ms"),
        _big("size_bytes"),
        _text("meta"),
        _text("props"),
        sa.PrimaryKeyConstraint("project_id", "conversation_id", "id", name=op.f("pk_conversation_entities")),
        _of_conversation("conversation_entities"),
    )
    op.create_index(
        op.f("ix_conversation_entities_project_id_conversation_id_position"),
        "conversation_entities",
        ["project_id", "conversation_id", "position"],
    )


def _create_prompts() -> None:
    op.create_table(
        "conversation_prompts",
        _text("project_id"),
        _text("conversation_id"),
        sa.Column("number", sa.BigInteger(), nullable=False, autoincrement=False),
        _text("session_id", nullable=True),
        _big("session_number", nullable=True),
        _big("attempts"),
        _big("created_at_ms"),
        _text("text"),
        sa.PrimaryKeyConstraint(
            "project_id", "conversation_id", "number", name=op.f("pk_conversation_prompts")
        ),
        _of_conversation("conversation_prompts"),
    )
    _partial_index(
        "ix_conversation_prompts_given",
        "conversation_prompts",
        ["session_id", "session_number"],
        "session_id IS NOT NULL",
    )


def _compress_faster() -> None:
    """lz4 for entities, where PostgreSQL was built with it: a streamed reply is written again and again."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    known = sa.text("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
    if "lz4" in (connection.execute(known).scalar_one_or_none() or []):
        op.execute("ALTER TABLE conversation_entities ALTER COLUMN props SET COMPRESSION lz4")
