"""What several services and workers share: the line of waiting sessions, deployments in progress, secrets.

Also suppressed errors, and what is kept warm.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LINE = "ended_at_ms IS NULL AND status IN ('queued', 'waiting', 'provisioning')"


def upgrade() -> None:
    """Add columns to sessions, deployments and deployed agents; add two tables."""
    _extend_sessions()
    _extend_deployments()
    _create_suppressions_and_secrets()
    op.create_index(op.f("ix_dead_letters_created_at_ms"), "dead_letters", ["created_at_ms"])
    _compress_faster()


def _partial_index(name: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    kind = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(name, kind, nullable=nullable)


def _flag(name: str, default: sa.ColumnElement[bool]) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean(), server_default=default, nullable=False)


def _extend_sessions() -> None:
    op.add_column("sessions", _text("mode", nullable=True))
    op.add_column("sessions", _flag("wait_for_capacity", sa.true()))
    for name in ("waiting_since_ms", "last_seen_ms", "joined_at_ms"):
        op.add_column("sessions", sa.Column(name, sa.BigInteger(), nullable=True))
    _partial_index("ix_sessions_line", "sessions", "number", _LINE)


def _extend_deployments() -> None:
    op.add_column("deployments", sa.Column("effective_at_ms", sa.BigInteger(), nullable=True))
    _partial_index("ix_deployments_active", "deployments", "number", "status = 'active'")
    op.add_column("deployed_agents", _flag("warm", sa.false()))
    _partial_index("ix_deployed_agents_warm", "deployed_agents", "deployed_at_ms", "warm")
    agents = sa.table("deployed_agents", sa.column("project_id"), sa.column("agent"), sa.column("warm"))
    connection = op.get_bind()
    for project_id, agent in connection.execute(sa.select(agents.c.project_id, agents.c.agent)).all():
        if json.loads(agent).get("warm_pool_enabled"):
            mine = agents.c.project_id == project_id
            connection.execute(sa.update(agents).where(mine).values(warm=sa.true()))


def _create_suppressions_and_secrets() -> None:
    op.create_table(
        "error_suppressions",
        _text("id"),
        _text("project_id"),
        _text("code"),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("first_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_error_suppressions")),
        sa.ForeignKeyConstraint(
            ["project_id"],
            ["projects.id"],
            name=op.f("fk_error_suppressions_project_id"),
            ondelete="CASCADE",
        ),
    )
    op.create_index(
        "ix_error_suppressions_project_newest",
        "error_suppressions",
        ["project_id", sa.text("last_at_ms DESC"), sa.text("id DESC")],
    )
    op.create_table(
        "platform_secrets",
        _text("name"),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_platform_secrets")),
    )


def _compress_faster() -> None:
    """lz4 for long texts, where PostgreSQL was built with it: its own way halves the rate of inserts."""
    connection = op.get_bind()
    if connection.dialect.name != "postgresql":
        return
    known = sa.text("SELECT enumvals FROM pg_settings WHERE name = 'default_toast_compression'")
    if "lz4" in (connection.execute(known).scalar_one_or_none() or []):
        for column in ("message", "client_message", "stack_trace", "customer_context", "details"):
            op.execute(f"ALTER TABLE session_errors ALTER COLUMN {column} SET COMPRESSION lz4")
