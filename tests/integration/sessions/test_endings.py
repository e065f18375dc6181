"""What clients hear of a session that ended without a word of its runner, from a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec import UNSET

from voicethere.adapters.store.store import SessionRecord, Store
from voicethere.errors.codes import CATALOG, SessionErrorCode
from voicethere.roles.sessions.endings import ended_notice
from voicethere.testing.queue import sample_error
from voicethere.wire.queue import QueueItem, SessionEndedItem


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = await Store.open(f"sqlite:///{tmp_path}/voicethere.db")
    yield store
    await store.aclose()


async def ended(store: Store, *errors: bool, failed: bool) -> SessionRecord:
    """A session that ended behind these errors: True for one that it went on after."""
    project = await store.create_project(org_id=await store.ensure_default_org(), name="Shop", slug="shop")
    await store.create_session(
        session_id="s-1",
        project_id=project.id,
        build_id=None,
        customer_context={"card": "4111 1111"},
        idempotency_key=None,
    )
    items: list[QueueItem] = [
        sample_error("s-1", project.id, recoverable=recoverable, client_message=f"sorry {number}")
        for number, recoverable in enumerate(errors)
    ]
    end = SessionEndedItem(
        session_id="s-1",
        project_id=project.id,
        end_reason="agent_error",
        failed=failed,
        ended_at="2026-06-19T12:00:00.000Z",
    )
    assert (await store.commit_batch([*items, end], [])).inserted == len(errors)
    record = await store.get_session("s-1")
    assert record is not None
    return record


async def test_what_ended_it_is_found_behind_any_number_of_errors(store: Store) -> None:
    record = await ended(store, *[True] * 250, False, failed=True)
    notice = await ended_notice(store, record.id, record)
    assert notice.error is not None
    assert (notice.error.code, notice.error.message) == ("AGENT_HANDLER_FAILED", "sorry 250")
    assert notice.error.recoverable is False


async def test_a_failure_whose_error_was_not_stored_is_told_all_the_same(store: Store) -> None:
    record = await ended(store, True, failed=True)
    notice = await ended_notice(store, record.id, record)
    assert notice.error is not None
    assert notice.error.code == "RUNNER_INTERNAL"
    assert notice.error.message == CATALOG[SessionErrorCode.RUNNER_INTERNAL].message
    assert notice.error.customer_context is UNSET  # nobody has redacted it


async def test_what_did_not_fail_is_no_error(store: Store) -> None:
    record = await ended(store, True, failed=False)
    assert (await ended_notice(store, record.id, record)).error is None
    assert (await ended_notice(store, "deleted", None)).error is None
