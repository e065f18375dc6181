"""The platform's first tables: orgs, keys, projects, builds, deployments, sessions, errors.

Steps go forward only: the way back is a backup.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _text(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    # Ordered by bytes, as on SQLite: a cursor must mean the same everywhere.
    kind = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    return sa.Column(name, kind, nullable=nullable)


def _big(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _number() -> sa.Column[Any]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("number", kind, autoincrement=True, nullable=False)


def _key(table: str, *columns: str) -> sa.PrimaryKeyConstraint:
    return sa.PrimaryKeyConstraint(*columns, name=op.f(f"pk_{table}"))


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=op.f(f"uq_{table}_{'_'.join(columns)}"))


def _belongs(table: str, column: str, target: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_{column}")
    return sa.ForeignKeyConstraint([column], [f"{target}.id"], name=name, ondelete="CASCADE")


def _index(table: str, columns: Sequence[str], name: str = "") -> None:
    expressions = [sa.text(column) if column.endswith(" DESC") else column for column in columns]
    op.create_index(op.f(name or f"ix_{table}_{'_'.join(columns)}"), table, expressions)


def upgrade() -> None:
    """Create every table."""
    _create_orgs_and_projects()
    _create_builds_and_deployments()
    _create_sessions_and_errors()


def _create_orgs_and_projects() -> None:
    op.create_table(
        "orgs",
        _text("id"),
        _text("slug"),
        _text("name"),
        _big("created_at_ms"),
        _key("orgs", "id"),
        _unique("orgs", "slug"),
    )
    op.create_table(
        "projects",
        _text("id"),
        _text("org_id"),
        _text("name"),
        _text("slug"),
        _text("active_build_id", nullable=True),
        _text("session_settings", nullable=True),
        _text("project_settings", nullable=True),
        _big("created_at_ms"),
        _key("projects", "id"),
        _unique("projects", "org_id", "slug"),
        _belongs("projects", "org_id", "orgs"),
    )
    op.create_table(
        "api_keys",
        _number(),
        _text("id"),
        _text("org_id"),
        _text("project_id", nullable=True),
        _text("name"),
        _text("kind"),
        _text("prefix"),
        _text("token_hash"),
        _big("created_at_ms"),
        _big("expires_at_ms", nullable=True),
        _big("revoked_at_ms", nullable=True),
        _key("api_keys", "number"),
        _unique("api_keys", "id"),
        _unique("api_keys", "token_hash"),
        _belongs("api_keys", "org_id", "orgs"),
        _belongs("api_keys", "project_id", "projects"),
    )
    _index("api_keys", ["org_id"])
    _index("api_keys", ["project_id"])
    for table, key in (("project_environment", "key"), ("project_secrets", "name")):
        op.create_table(
            table,
            _text("project_id"),
            _text(key),
            _text("value"),
            _key(table, "project_id", key),
            _belongs(table, "project_id", "projects"),
        )


def _create_builds_and_deployments() -> None:
    op.create_table(
        "builds",
        _number(),
        _text("id"),
        _text("project_id"),
        _big("size_bytes"),
        _text("checksum_sha256"),
        _text("validation_status"),
        _text("validation_error", nullable=True),
        _text("message", nullable=True),
        _big("created_at_ms"),
        _key("builds", "number"),
        _unique("builds", "id"),
        _belongs("builds", "project_id", "projects"),
    )
    _index("builds", ["project_id", "number"])
    op.create_table(
        "deployments",
        _number(),
        _text("id"),
        _text("project_id"),
        _text("build_id", nullable=True),
        _text("status"),
        _text("mode"),
        _text("error", nullable=True),
        _big("created_at_ms"),
        _big("completed_at_ms", nullable=True),
        _key("deployments", "number"),
        _unique("deployments", "id"),
        _belongs("deployments", "project_id", "projects"),
    )
    _index("deployments", ["project_id", "number"])
    op.create_table(
        "deployed_agents",
        _text("project_id"),
        _text("deployment_id"),
        _text("build_id"),
        _text("agent"),
        _big("deployed_at_ms"),
        _key("deployed_agents", "project_id"),
        _belongs("deployed_agents", "project_id", "projects"),
    )


def _create_sessions_and_errors() -> None:
    op.create_table(
        "sessions",
        _number(),
        _text("id"),
        _text("project_id"),
        _text("build_id", nullable=True),
        _text("status"),
        _text("failure_code", nullable=True),
        _text("failure_message", nullable=True),
        _text("runner_id", nullable=True),
        _text("customer_context", nullable=True),
        _text("idempotency_key", nullable=True),
        _big("created_at_ms"),
        _big("updated_at_ms"),
        _big("completed_at_ms", nullable=True),
        _big("ended_at_ms", nullable=True),
        _text("end_reason", nullable=True),
        sa.Column("failed", sa.Boolean(), server_default=sa.false(), nullable=False),
        _key("sessions", "number"),
        _unique("sessions", "id"),
        _unique("sessions", "project_id", "idempotency_key"),
        _belongs("sessions", "project_id", "projects"),
    )
    _index("sessions", ["project_id", "created_at_ms DESC", "number DESC"], "ix_sessions_project_newest")
    unfinished = sa.text("ended_at_ms IS NULL")
    op.create_index(
        "ix_sessions_unfinished",
        "sessions",
        ["number"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
    op.create_table(
        "session_errors",
        _text("id"),
        _text("project_id"),
        _text("session_id"),
        _text("build_id", nullable=True),
        _text("source"),
        _text("code"),
        _text("message"),
        _text("client_message", nullable=True),
        _text("stack_trace", nullable=True),
        sa.Column("recoverable", sa.Boolean(), nullable=False),
        _text("customer_context", nullable=True),
        _text("details"),
        _big("occurred_at_ms"),
        _big("created_at_ms"),
        _key("session_errors", "id"),
        _belongs("session_errors", "project_id", "projects"),
    )
    _index(
        "session_errors",
        ["project_id", "occurred_at_ms DESC", "id DESC"],
        "ix_session_errors_project_newest",
    )
    _index(
        "session_errors",
        ["project_id", "session_id", "occurred_at_ms", "id"],
        "ix_session_errors_session_oldest",
    )
    op.create_table(
        "dead_letters",
        _number(),
        _text("checksum_sha256"),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        _big("size_bytes"),
        _text("problem"),
        _big("created_at_ms"),
        _key("dead_letters", "number"),
        _unique("dead_letters", "checksum_sha256"),
    )
