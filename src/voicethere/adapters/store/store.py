"""The database behind the platform: projects, builds, deployments, keys, sessions, errors.

This module only delegates: each concept has a module of functions on a connection, `database` runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select

from voicethere.adapters.store import (
    batch,
    builds,
    columns,
    conversation_changes,
    conversation_turns,
    conversations,
    dead_letters,
    keys,
    platform_secrets,
    projects,
    prompts,
    retention,
    session_errors,
    sessions,
    tables,
)
from voicethere.adapters.store.database import Database, open_database
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
from voicethere.core.clock import SystemClock
from voicethere.core.conversation import Applied, Composed, ConversationChange, Skipped, StoredEntity
from voicethere.core.ports import Clock
from voicethere.errors.records import ErrorRecord
from voicethere.wire.control_plane import (
    ApiKey,
    Build,
    Deployment,
    DeploymentStatus,
    DeployMode,
    KeyKind,
    Project,
    SessionRow,
    ValidationStatus,
)
from voicethere.wire.queue import QueueItem
from voicethere.wire.relay import DeployedAgent
from voicethere.wire.session_api import FailureCode, Mode, ProvisioningStatus
from voicethere.wire.settings import ProjectSettings, SessionSettings

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


class Store:
    """Every method raises StoreUnavailable where the database cannot be used now.

    All ids are strings; a method given the id of something that is not there (or of another org's project)
    returns None. Times are wire times.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        clock: Clock | None = None,
        busy_seconds: float = 5.0,
        answer_seconds: float = 8.0,
    ) -> Store:
        """Open and migrate. `url` is `sqlite:///path/voicethere.db` or `postgresql://user@host/database`.

        `clock` dates the rows; `busy_seconds` is how long to wait for another's transaction, and
        `answer_seconds` how long a server may take over one statement, before the store is unavailable.

        Raises:
            ValueError: the URL is of no database that is supported, or its driver is not installed.
            StoreUnavailable: it cannot be opened.
        """
        database = await open_database(url, busy_seconds=busy_seconds, answer_seconds=answer_seconds)
        return cls(database, clock or SystemClock())

    async def aclose(self) -> None:
        """Finish what was asked for, then release the database."""
        await self._database.aclose()

    def _now(self) -> int:
        return columns.now_ms(self._clock)

    # -- orgs and keys
    async def ensure_default_org(self) -> str:
        """The id of the one org of an embedded platform; created the first time."""
        return await self._database.write(lambda c: keys.ensure_default_org(c, self._now()))

    async def create_key(
        self,
        *,
        org_id: str,
        name: str,
        kind: KeyKind,
        project_id: str | None,
        token_hash: str,
        prefix: str,
        expires_at: str | None,
    ) -> ApiKey:
        expires_at_ms = None if expires_at is None else columns.to_ms(expires_at)
        return await self._database.write(
            lambda c: keys.create_key(
                c,
                self._now(),
                org_id=org_id,
                name=name,
                kind=kind,
                project_id=project_id,
                token_hash=token_hash,
                prefix=prefix,
                expires_at_ms=expires_at_ms,
            )
        )

    async def list_keys(self, org_id: str) -> Sequence[ApiKey]:
        return await self._database.read(lambda c: keys.list_keys(c, org_id))

    async def revoke_key(self, org_id: str, key_id: str) -> bool:
        return await self._database.write(
            lambda c: keys.revoke_key(c, self._now(), org_id=org_id, key_id=key_id)
        )

    async def find_key(self, token_hash: str) -> KeyRecord | None:
        """A live key by the SHA-256 (hex) of its token."""
        return await self._database.read(lambda c: keys.find_key(c, self._now(), token_hash))

    async def find_key_and_settings(
        self, token_hash: str, project_id: str | None
    ) -> tuple[KeyRecord | None, ProjectSettings | None]:
        """A live key, and the settings of this project (of its own, without one); these are None where its
        org has no such project."""
        return await self._database.read(
            lambda c: keys.find_key_and_settings(c, self._now(), token_hash, project_id)
        )

    # -- projects
    async def create_project(self, *, org_id: str, name: str, slug: str) -> Project:
        """Raises StoreConflict where the org has this slug already."""
        return await self._database.write(
            lambda c: projects.create_project(c, self._now(), org_id=org_id, name=name, slug=slug)
        )

    async def list_projects(self, org_id: str) -> Sequence[Project]:
        return await self._database.read(lambda c: projects.list_projects(c, org_id))

    async def get_project(self, project_id: str, *, org_id: str) -> Project | None:
        return await self._database.read(lambda c: projects.get_project(c, project_id, org_id=org_id))

    async def delete_project(self, project_id: str, *, org_id: str) -> bool:
        """With its builds, deployments, sessions, errors and keys; where it breaks off, some errors and
        sessions are gone and the project is still there."""
        if await self.get_project(project_id, org_id=org_id) is None:
            return False
        await retention.empty_project(self._database, project_id)
        return await self._database.write(lambda c: projects.delete_project(c, project_id, org_id=org_id))

    # -- settings, environment, secrets
    async def get_session_settings(self, project_id: str) -> SessionSettings:
        column = tables.projects.c.session_settings
        return await self._database.read(
            lambda c: projects.get_settings(c, project_id, column, SessionSettings)
        )

    async def put_session_settings(self, project_id: str, settings: SessionSettings) -> None:
        column = tables.projects.c.session_settings
        await self._database.write(lambda c: projects.put_settings(c, project_id, column, settings))

    async def get_project_settings(self, project_id: str) -> ProjectSettings:
        column = tables.projects.c.project_settings
        return await self._database.read(
            lambda c: projects.get_settings(c, project_id, column, ProjectSettings)
        )

    async def put_project_settings(self, project_id: str, settings: ProjectSettings) -> None:
        column = tables.projects.c.project_settings
        await self._database.write(lambda c: projects.put_settings(c, project_id, column, settings))

    async def get_environment(self, project_id: str) -> dict[str, str]:
        table = tables.project_environment
        return await self._database.read(lambda c: projects.get_pairs(c, table, project_id))

    async def put_environment(self, project_id: str, key: str, value: str) -> None:
        table = tables.project_environment
        await self._database.write(lambda c: projects.put_pair(c, table, project_id, key, value))

    async def delete_environment(self, project_id: str, key: str) -> bool:
        table = tables.project_environment
        return await self._database.write(lambda c: projects.delete_pair(c, table, project_id, key))

    async def get_secrets(self, project_id: str) -> dict[str, str]:
        table = tables.project_secrets
        return await self._database.read(lambda c: projects.get_pairs(c, table, project_id))

    async def put_secret(self, project_id: str, name: str, value: str) -> None:
        table = tables.project_secrets
        await self._database.write(lambda c: projects.put_pair(c, table, project_id, name, value))

    async def delete_secret(self, project_id: str, name: str) -> bool:
        table = tables.project_secrets
        return await self._database.write(lambda c: projects.delete_pair(c, table, project_id, name))

    # -- builds and deployments
    async def create_build(
        self,
        *,
        project_id: str,
        size_bytes: int,
        checksum_sha256: str,
        message: str | None,
        validation_status: ValidationStatus,
        validation_error: str | None,
    ) -> Build:
        return await self._database.write(
            lambda c: builds.create_build(
                c,
                self._now(),
                project_id=project_id,
                size_bytes=size_bytes,
                checksum_sha256=checksum_sha256,
                message=message,
                validation_status=validation_status,
                validation_error=validation_error,
            )
        )

    async def list_builds(self, project_id: str) -> Sequence[Build]:
        """Newest first."""
        return await self._database.read(lambda c: builds.list_builds(c, project_id))

    async def get_build(self, project_id: str, build_id: str) -> Build | None:
        return await self._database.read(lambda c: builds.get_build(c, project_id, build_id))

    async def set_active_build(self, project_id: str, build_id: str) -> None:
        await self._database.write(lambda c: builds.set_active_build(c, project_id, build_id))

    async def create_deployment(
        self, *, project_id: str, build_id: str | None, mode: DeployMode
    ) -> Deployment:
        return await self._database.write(
            lambda c: builds.create_deployment(
                c, self._now(), project_id=project_id, build_id=build_id, mode=mode
            )
        )

    async def finish_deployment(
        self, deployment_id: str, *, status: DeploymentStatus, error: str | None, agent: DeployedAgent | None
    ) -> Deployment:
        """The first step, active or completed, with an `agent`: from now on the project's sessions run with
        exactly that. An active deployment has not come to its end yet (its sessions of before go on)."""
        return await self._database.write(
            lambda c: builds.finish_deployment(
                c, self._now(), deployment_id, status=status, error=error, agent=agent
            )
        )

    async def get_deployment(self, deployment_id: str, *, org_id: str) -> Deployment | None:
        return await self._database.read(lambda c: builds.get_deployment(c, deployment_id, org_id=org_id))

    async def active_deployments(self) -> Sequence[Deployment]:
        """Those that are on their way, oldest first."""
        return await self._database.read(builds.active_deployments)

    async def undeploy(self, project_id: str) -> bool:
        return await self._database.write(lambda c: builds.undeploy(c, project_id))

    async def undeploy_as_job(self, project_id: str) -> Deployment | None:
        """`undeploy`, kept as a completed deployment of no build; None where nothing was deployed."""
        return await self._database.write(lambda c: builds.undeploy_as_job(c, self._now(), project_id))

    async def deployed_agent(self, project_id: str) -> DeployedAgent | None:
        """What the last completed deploy froze; None where nothing is deployed."""
        return await self._database.read(lambda c: builds.deployed_agent(c, project_id))

    async def served_builds(self, project_id: str, limit: int = 1000) -> list[str]:
        """The builds of the project's deployments that took effect, newest deployment first."""
        return await self._database.read(lambda c: builds.served_builds(c, project_id, limit))

    async def warm_agents(self, limit: int = 100) -> list[DeployedAgent]:
        """What is deployed and wants a warm child, newest deploy first."""
        return await self._database.read(lambda c: builds.warm_agents(c, limit))

    # -- sessions
    async def create_session(
        self,
        *,
        session_id: str,
        project_id: str,
        build_id: str | None,
        customer_context: dict[str, Any] | None,
        idempotency_key: str | None,
        wait_for_capacity: bool = True,
        conversation_id: str | None = None,
    ) -> SessionRecord:
        """With an idempotency key that the project has used before: that session, unchanged."""
        return await self._database.write(
            lambda c: sessions.create_session(
                c,
                self._now(),
                session_id=session_id,
                project_id=project_id,
                build_id=build_id,
                customer_context=customer_context,
                idempotency_key=idempotency_key,
                wait_for_capacity=wait_for_capacity,
                conversation_id=conversation_id,
            )
        )

    async def get_session(self, session_id: str) -> SessionRecord | None:
        return await self._database.read(lambda c: sessions.get_session(c, session_id))

    async def find_repeated_session(self, project_id: str, idempotency_key: str) -> SessionRecord | None:
        """The session that the project made with this idempotency key; None where there is none."""
        return await self._database.read(
            lambda c: sessions.find_repeated_session(c, project_id, idempotency_key)
        )

    async def unfinished_sessions(self) -> Sequence[SessionRecord]:
        """All sessions without an end, oldest first: what a session service that starts must see to."""
        return await self._database.read(sessions.unfinished_sessions)

    async def update_session(
        self,
        session_id: str,
        *,
        status: ProvisioningStatus,
        build_id: str | None = None,
        runner_id: str | None = None,
        failure_code: FailureCode | None = None,
        failure_message: str | None = None,
        mode: Mode | None = None,
    ) -> SessionRecord | None:
        """Never changes a session that has ended, failed or is ready: it is returned as it is."""
        return await self._database.write(
            lambda c: sessions.update_session(
                c,
                self._now(),
                session_id,
                status=status,
                build_id=build_id,
                runner_id=runner_id,
                failure_code=failure_code,
                failure_message=failure_message,
                mode=mode,
            )
        )

    async def session_joined(self, session_id: str) -> None:
        """Its client has come to its room; the first time is kept."""
        await self._database.write(lambda c: sessions.session_joined(c, self._now(), session_id))

    async def session_seen(self, session_id: str) -> None:
        """Its client has asked for it; kept while it has no runner."""
        await self._database.write(lambda c: sessions.session_seen(c, self._now(), session_id))

    async def waiting_place(self, session_id: str) -> WaitingPlace | None:
        """Its place in the line; None where it does not wait."""
        return await self._database.read(lambda c: sessions.waiting_place(c, session_id))

    async def expired_waiters(self, before_last_seen: str) -> list[str]:
        """Ids of those that wait and were last seen before this wire time, oldest first."""
        before_ms = columns.to_ms(before_last_seen)
        return await self._database.read(lambda c: sessions.expired_waiters(c, before_ms))

    async def queued_sessions(self) -> Sequence[SessionRecord]:
        """Those for which nothing was done yet, oldest first; cheap enough for every second."""
        return await self._database.read(sessions.queued_sessions)

    async def list_sessions(
        self, project_id: str, *, start: str | None, end: str | None, limit: int
    ) -> Sequence[SessionRow]:
        """Newest first."""
        start_ms = None if start is None else columns.to_ms(start)
        end_ms = None if end is None else columns.to_ms(end)
        return await self._database.read(
            lambda c: sessions.list_sessions(c, project_id, start_ms=start_ms, end_ms=end_ms, limit=limit)
        )

    async def count_sessions(self, project_id: str, *, since: str) -> int:
        """How many sessions the project has made since then (a wire time)."""
        since_ms = columns.to_ms(since)
        return await self._database.read(lambda c: sessions.count_sessions(c, project_id, since_ms=since_ms))

    async def open_sessions_by_status(self) -> dict[str, int]:
        """How many sessions that have not ended there are, by status; for those who watch."""
        return await self._database.read(sessions.open_sessions_by_status)

    async def get_session_row(self, project_id: str, session_id: str) -> SessionRow | None:
        return await self._database.read(lambda c: sessions.get_session_row(c, project_id, session_id))

    # -- conversations
    async def open_conversation(self, project_id: str, conv_id: str) -> ConversationRecord:
        """Made where there is none. Raises ValueError for an id that a conversation cannot have, LookupError
        where there is no such project."""
        return await self._database.write(
            lambda c: conversations.open_conversation(c, self._now(), project_id, conv_id)
        )

    async def issue_conversation(self, project_id: str, *, seconds: float) -> ConversationRecord:
        """A new one with a random id, to be used for so long; raises as `open_conversation`."""
        return await self._database.write(
            lambda c: conversations.issue_conversation(c, self._now(), project_id, seconds=seconds)
        )

    async def find_conversation(self, project_id: str, conv_id: str) -> ConversationRecord | None:
        return await self._database.read(lambda c: conversations.find_conversation(c, project_id, conv_id))

    async def conversation_of_session(self, session_id: str) -> ConversationRecord | None:
        """The conversation that the session is, or was, one of; None where it is none of a chat."""
        return await self._database.read(lambda c: conversations.conversation_of_session(c, session_id))

    async def timeline(self, project_id: str, conv_id: str) -> Timeline:
        """Everything as of one moment; version 0 and nothing for a conversation that is not there."""
        return await self._database.read(lambda c: conversations.timeline(c, project_id, conv_id))

    async def latest_entities(
        self, project_id: str, conv_id: str, limit: int, *, since: int = 0
    ) -> list[StoredEntity]:
        """The `limit` entities that were changed last (after version `since`), in the timeline's order."""
        return await self._database.read(
            lambda c: conversations.latest_entities(c, project_id, conv_id, limit=limit, since=since)
        )

    async def conversations_changed(
        self, project_id: str, *, since: str, limit: int = 10_000
    ) -> dict[str, int]:
        """The `seq` of conversations that were changed at or after this wire time, by their ids; the newest
        `limit` ones."""
        since_ms = columns.to_ms(since)
        return await self._database.read(
            lambda c: conversations.changed_since(c, project_id, since_ms, limit=limit)
        )

    async def accept_prompt(self, project_id: str, conv_id: str, text: str, echo: Composed) -> Accepted:
        """Keep a prompt and its echo (`core.conversation.compose_prompt`) in one transaction; the
        conversation is made where there is none. It is the current session's at once, where there is one.

        Raises ValueError for a prompt or an id that is none, TooManyPrompts where too many wait, LookupError
        where there is no such project.
        """
        return await self._database.write(
            lambda c: conversation_turns.accept_prompt(c, self._now(), project_id, conv_id, text, echo)
        )

    async def pending_prompts(self, project_id: str, conv_id: str) -> list[PendingPrompt]:
        """Those that no session has taken, in their order: the current session's, or none's."""
        return await self._database.read(lambda c: prompts.pending(c, project_id, conv_id))

    async def prompts_taken(self, session_id: str, up_to: int) -> int:
        """The session has taken its prompts up to and with this number; how many of them were pending."""
        return await self._database.write(lambda c: prompts.taken(c, session_id, up_to))

    async def begin_conversation_session(
        self,
        project_id: str,
        conv_id: str,
        *,
        session_id: str,
        customer_context: dict[str, Any] | None = None,
        wait_for_capacity: bool = True,
    ) -> SessionRecord | None:
        """Make a session for the conversation and give it the prompts that wait, in one transaction; None
        where the conversation has a session (another gateway was first) or is not there."""
        return await self._database.write(
            lambda c: conversation_turns.begin_session(
                c,
                self._now(),
                project_id,
                conv_id,
                session_id=session_id,
                customer_context=customer_context,
                wait_for_capacity=wait_for_capacity,
            )
        )

    async def give_up_prompts(
        self, project_id: str, conv_id: str, record: ErrorRecord, told: Composed
    ) -> Applied | None:
        """Drop the prompts for which `MAX_PROMPT_SESSIONS` sessions were begun in vain, store the error and
        tell it (`core.conversation.compose_failures`), in one transaction; None where there is no such prompt
        (any more)."""
        return await self._database.write(
            lambda c: conversation_turns.give_up_prompts(c, self._now(), project_id, conv_id, record, told)
        )

    async def apply_outputs(self, changes: Sequence[ConversationChange]) -> list[Applied | Skipped]:
        """Apply each change once, all of them in one transaction; the answers in the same order.

        A change with a `session_end` also ends the conversation's session: then what that has not taken of
        its prompts is for the next one, or dropped.
        """
        return await self._database.write(
            lambda c: conversation_changes.apply_outputs(c, self._now(), changes)
        )

    async def conversation_sessions_to_reconcile(self, limit: int) -> list[HeldSession]:
        """Current sessions of conversations that are ended, failed or deleted; ended ones first."""
        return await self._database.read(lambda c: conversations.sessions_to_reconcile(c, limit))

    async def conversations_waiting(self, *, before: str, limit: int) -> list[ConversationRecord]:
        """Those with a prompt of before this wire time that no session has taken; longest waiting first."""
        before_ms = columns.to_ms(before)
        return await self._database.read(lambda c: prompts.conversations_waiting(c, before_ms, limit))

    # -- errors
    async def commit_batch(
        self, items: Sequence[QueueItem], dead: Sequence[tuple[bytes, str]]
    ) -> CommittedBatch:
        """In one transaction: error rows ("on conflict do nothing" on the id), ends of sessions, and dead
        letters (`(data, problem)`). An error whose session or project is not known becomes a dead letter."""
        return await self._database.write(lambda c: batch.commit_batch(c, self._now(), items, dead))

    async def project_errors(self, project_id: str, *, limit: int, cursor: str | None) -> ErrorPage:
        """Newest first. Raises ValueError for a cursor that is none."""
        return await self._database.read(
            lambda c: session_errors.project_errors(c, project_id, limit=limit, cursor=cursor)
        )

    async def session_errors(
        self, project_id: str, session_id: str, *, limit: int, cursor: str | None
    ) -> ErrorPage:
        """Oldest first."""
        return await self._database.read(
            lambda c: session_errors.errors_of_session(c, project_id, session_id, limit=limit, cursor=cursor)
        )

    async def suppressed_errors(self, project_id: str, limit: int = 100) -> Sequence[Suppression]:
        """What was counted and not stored, newest first."""
        return await self._database.read(
            lambda c: session_errors.suppressed_errors(c, project_id, limit=limit)
        )

    # -- dead letters
    async def dead_letters(self, *, limit: int = 20, before: int | None = None) -> Sequence[DeadLetter]:
        """What could not be stored as what it was, newest first; `before`: with smaller numbers only."""
        return await self._database.read(
            lambda c: dead_letters.newest_dead_letters(c, limit=limit, before=before)
        )

    async def get_dead_letter(self, number: int) -> DeadLetter | None:
        return await self._database.read(lambda c: dead_letters.get_dead_letter(c, number))

    async def delete_dead_letter(self, number: int, *, only_set_aside: bool = False) -> bool:
        """`only_set_aside`: only where it was set aside; SQLite gives the highest number again."""
        return await self._database.write(
            lambda c: dead_letters.delete_dead_letter(c, number, only_set_aside=only_set_aside)
        )

    async def set_dead_letter_aside(self, number: int) -> bool:
        """From now on the same bytes may be buried anew, beside this letter, which stays."""
        return await self._database.write(lambda c: dead_letters.set_aside(c, number))

    async def count_dead_letters(self) -> int:
        return await self._database.read(dead_letters.count_dead_letters)

    # -- the platform
    async def platform_secret(self, name: str, make: Callable[[], bytes]) -> bytes:
        """Made once, with `make`; the same for all processes on this database."""
        return await self._database.write(lambda c: platform_secrets.platform_secret(c, name, make))

    async def apply_retention(
        self, *, default_days: int, default_errors: int, batch: int = 5000
    ) -> RetentionDone:
        """Delete what is too old or too much, in short transactions: at most `batch` rows of a kind per
        project. Call it again while there is `more`.

        A project's own `retention_days` and `retention_errors` go before the defaults; 0 keeps for ever.
        Dead letters and suppressions go by `default_days`.
        """
        return await retention.apply_retention(
            self._database,
            self._now(),
            default_days=default_days,
            default_errors=default_errors,
            batch=batch,
        )

    async def ping(self) -> None:
        """Return where the database answers."""
        await self._database.read(lambda c: c.execute(select(1)).scalar_one())
