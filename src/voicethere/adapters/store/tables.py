"""The tables, as SQLAlchemy Core describes them; the migrations must lead to exactly these.

Conventions: `*_at_ms` is milliseconds since the epoch; JSON is text, encoded by msgspec; ids are opaque
text. Whatever belongs to a project goes with it, and every such foreign key leads an index, so that a
deletion does not scan. There is no foreign key from errors to sessions or builds: history outlives both.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    false,
    text,
    true,
)

from voicethere.adapters.store.columns import Text

LINE = text("ended_at_ms IS NULL AND status IN ('queued', 'waiting', 'provisioning')")
"""Sessions that have no runner yet. Values in the text: a parameter would not match the index's condition."""
ACTIVE = text("status = 'active'")
WARM = text("warm")
OF_A_CHAT = text("conversation_id IS NOT NULL")
IN_SESSION = text("session_open")
GIVEN = text("session_id IS NOT NULL")

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _number() -> Column[int]:
    """Counts rows as they are made: the order of two rows of the same millisecond."""
    return Column(
        "number", BigInteger().with_variant(Integer(), "sqlite"), primary_key=True, autoincrement=True
    )


def _project(*, primary_key: bool = False, nullable: bool = False) -> Column[str]:
    owner = ForeignKey("projects.id", ondelete="CASCADE")
    return Column("project_id", Text, owner, primary_key=primary_key, nullable=nullable)


def _conversation() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["project_id", "conversation_id"],
        ["conversations.project_id", "conversations.id"],
        ondelete="CASCADE",
    )


orgs = Table(
    "orgs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("slug", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    UniqueConstraint("slug"),
)

projects = Table(
    "projects",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("slug", Text, nullable=False),
    Column("active_build_id", Text),
    Column("session_settings", Text),
    Column("project_settings", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    UniqueConstraint("org_id", "slug"),
)

api_keys = Table(
    "api_keys",
    metadata,
    _number(),
    Column("id", Text, nullable=False),
    Column("org_id", Text, ForeignKey("orgs.id", ondelete="CASCADE"), nullable=False),
    _project(nullable=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("prefix", Text, nullable=False),
    Column("token_hash", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("revoked_at_ms", BigInteger),
    UniqueConstraint("id"),
    UniqueConstraint("token_hash"),
    Index(None, "org_id"),
    Index(None, "project_id"),
)

project_environment = Table(
    "project_environment",
    metadata,
    _project(primary_key=True),
    Column("key", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

# Readable, because a runner needs the values: they are protected by the modes of the file and its
# directory (0600, 0700). Encryption at rest comes with a later issue.
project_secrets = Table(
    "project_secrets",
    metadata,
    _project(primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

builds = Table(
    "builds",
    metadata,
    _number(),
    Column("id", Text, nullable=False),
    _project(),
    Column("size_bytes", BigInteger, nullable=False),
    Column("checksum_sha256", Text, nullable=False),
    Column("validation_status", Text, nullable=False),
    Column("validation_error", Text),
    Column("message", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    UniqueConstraint("id"),
    Index(None, "project_id", "number"),
)

deployments = Table(
    "deployments",
    metadata,
    _number(),
    Column("id", Text, nullable=False),
    _project(),
    Column("build_id", Text),
    Column("status", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("error", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("completed_at_ms", BigInteger),
    # When its agent became the deployed one: that happens once, however often it is said.
    Column("effective_at_ms", BigInteger),
    UniqueConstraint("id"),
    Index(None, "project_id", "number"),
)
Index("ix_deployments_active", deployments.c.number, sqlite_where=ACTIVE, postgresql_where=ACTIVE)

# What the last completed deploy froze; no row where nothing is deployed. `agent` holds secrets, too.
deployed_agents = Table(
    "deployed_agents",
    metadata,
    _project(primary_key=True),
    Column("deployment_id", Text, nullable=False),
    Column("build_id", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("deployed_at_ms", BigInteger, nullable=False),
    Column("warm", Boolean, nullable=False, server_default=false()),
)
Index(
    "ix_deployed_agents_warm",
    deployed_agents.c.deployed_at_ms,
    sqlite_where=WARM,
    postgresql_where=WARM,
)

sessions = Table(
    "sessions",
    metadata,
    _number(),
    Column("id", Text, nullable=False),
    _project(),
    Column("build_id", Text),
    Column("status", Text, nullable=False),
    Column("failure_code", Text),
    Column("failure_message", Text),
    Column("runner_id", Text),
    Column("customer_context", Text),
    Column("idempotency_key", Text),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("completed_at_ms", BigInteger),
    Column("ended_at_ms", BigInteger),
    Column("end_reason", Text),
    Column("failed", Boolean, nullable=False, server_default=false()),
    Column("mode", Text),
    Column("wait_for_capacity", Boolean, nullable=False, server_default=true()),
    Column("waiting_since_ms", BigInteger),
    Column("last_seen_ms", BigInteger),
    Column("joined_at_ms", BigInteger),
    # Of a chat: the session's client is a conversation. A conversation may be gone before its sessions are.
    Column("conversation_id", Text),
    UniqueConstraint("id"),
    UniqueConstraint("project_id", "idempotency_key"),
)
Index(
    "ix_sessions_project_newest",
    sessions.c.project_id,
    sessions.c.created_at_ms.desc(),
    sessions.c.number.desc(),
)
# Small however many sessions there were: what a session service that starts looks through.
Index(
    "ix_sessions_unfinished",
    sessions.c.number,
    sqlite_where=sessions.c.ended_at_ms.is_(None),
    postgresql_where=sessions.c.ended_at_ms.is_(None),
)
# Smaller still: the line that waits for a runner. Numbers only, so that a place is counted in the index.
Index("ix_sessions_line", sessions.c.number, sqlite_where=LINE, postgresql_where=LINE)

Index(
    "ix_sessions_conversation",
    sessions.c.project_id,
    sessions.c.conversation_id,
    sessions.c.number,
    sqlite_where=OF_A_CHAT,
    postgresql_where=OF_A_CHAT,
)

# The counters are those of `core.conversation.ConversationState`; `prompts` counts all prompts,
# `session_prompts` those given to the current session. `content_bytes` sums up the entities' `size_bytes`.
conversations = Table(
    "conversations",
    metadata,
    _project(primary_key=True),
    Column("id", Text, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False),
    Column("session_id", Text),
    Column("session_open", Boolean, nullable=False),
    Column("outputs", BigInteger, nullable=False),
    Column("previous_session_id", Text),
    Column("previous_outputs", BigInteger, nullable=False),
    Column("prompts", BigInteger, nullable=False),
    Column("session_prompts", BigInteger, nullable=False),
    Column("arrivals", BigInteger, nullable=False),
    Column("content_bytes", BigInteger, nullable=False),
    Column("issued", Boolean, nullable=False),
    Column("expires_at_ms", BigInteger),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("streams", Text, nullable=False),
    Column("finished", Text, nullable=False),
    Index(None, "project_id", "updated_at_ms"),
)
Index(
    "ix_conversations_in_session",
    conversations.c.session_id,
    sqlite_where=IN_SESSION,
    postgresql_where=IN_SESSION,
)

# What is long comes last: a database reads a row from its front.
conversation_entities = Table(
    "conversation_entities",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("conversation_id", Text, primary_key=True),
    Column("id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("updated_at_ms", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("meta", Text, nullable=False),
    Column("props", Text, nullable=False),
    _conversation(),
    Index(None, "project_id", "conversation_id", "position"),
)

# Prompts that no session has taken yet. `session_number` counts those of one session, `attempts` the
# sessions that a prompt was given to.
conversation_prompts = Table(
    "conversation_prompts",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("conversation_id", Text, primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("session_id", Text),
    Column("session_number", BigInteger),
    Column("attempts", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("text", Text, nullable=False),
    _conversation(),
)
Index(
    "ix_conversation_prompts_given",
    conversation_prompts.c.session_id,
    conversation_prompts.c.session_number,
    sqlite_where=GIVEN,
    postgresql_where=GIVEN,
)

session_errors = Table(
    "session_errors",
    metadata,
    Column("id", Text, primary_key=True),
    _project(),
    Column("session_id", Text, nullable=False),
    Column("build_id", Text),
    Column("source", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("client_message", Text),
    Column("stack_trace", Text),
    Column("recoverable", Boolean, nullable=False),
    Column("customer_context", Text),
    Column("details", Text, nullable=False),
    Column("occurred_at_ms", BigInteger, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
)
Index(
    "ix_session_errors_project_newest",
    session_errors.c.project_id,
    session_errors.c.occurred_at_ms.desc(),
    session_errors.c.id.desc(),
)
Index(
    "ix_session_errors_session_oldest",
    session_errors.c.project_id,
    session_errors.c.session_id,
    session_errors.c.occurred_at_ms,
    session_errors.c.id,
)

# Errors that were counted and not queued, because their project had too many at once.
error_suppressions = Table(
    "error_suppressions",
    metadata,
    Column("id", Text, primary_key=True),
    _project(),
    Column("code", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_at_ms", BigInteger, nullable=False),
    Column("last_at_ms", BigInteger, nullable=False),
)
Index(
    "ix_error_suppressions_project_newest",
    error_suppressions.c.project_id,
    error_suppressions.c.last_at_ms.desc(),
    error_suppressions.c.id.desc(),
)

# Made by the first process that asks, the same for all of them: what signs join tokens, for example.
platform_secrets = Table(
    "platform_secrets",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

# The checksum is that of the whole item: one that is delivered again is buried once.
dead_letters = Table(
    "dead_letters",
    metadata,
    _number(),
    Column("checksum_sha256", Text, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("problem", Text, nullable=False),
    Column("created_at_ms", BigInteger, nullable=False),
    UniqueConstraint("checksum_sha256"),
    Index(None, "created_at_ms"),
)
