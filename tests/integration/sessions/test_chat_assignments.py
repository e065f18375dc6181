"""Sessions of conversations: what runners are told of them, that nobody joins them, how they are polled."""

from __future__ import annotations

import asyncio
import uuid

import msgspec
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.integration.sessions.conftest import PATIENCE, Platform, eventually
from voicethere.adapters.store.store import SessionRecord
from voicethere.roles.sessions.hosted import room_id_of
from voicethere.testing.scripted_runner import ScriptedRunner
from voicethere.wire.control_plane import DeploymentStatus, DeployMode
from voicethere.wire.relay import AssignSession, CancelSession, EndSession, SessionWanted
from voicethere.wire.session_api import Mode


async def start_chat(platform: Platform) -> str:
    """A session of a conversation, as a chat gateway makes it."""
    session_id = str(uuid.uuid4())
    await platform.store.open_conversation(platform.project.id, "conv-1")
    await platform.store.create_session(
        session_id=session_id,
        project_id=platform.project.id,
        build_id=None,
        customer_context=None,
        idempotency_key=None,
        conversation_id="conv-1",
    )
    await platform.hub.publish(SessionWanted(session_id=session_id))
    return session_id


async def assigned(runner: ScriptedRunner, session_id: str) -> AssignSession:
    return await runner.heard(AssignSession, where=lambda message: message.session_id == session_id)


async def record_of(platform: Platform, session_id: str) -> SessionRecord:
    record = await platform.store.get_session(session_id)
    assert record is not None
    return record


@pytest.mark.states("sem-chat/gateway/session")
async def test_a_voice_agents_conversation_is_assigned_as_a_chat_without_audio(platform: Platform) -> None:
    agent = await platform.deploy(mode=Mode.VOICE)
    runner = await platform.runner()
    session_id = await start_chat(platform)
    assignment = await assigned(runner, session_id)
    assert assignment.chat
    assert assignment.agent.mode is Mode.DATA
    assert assignment.agent.build_id == agent.build_id
    await platform.until(session_id, status="ready")
    record = await record_of(platform, session_id)
    assert (record.mode, record.runner_id) == (Mode.DATA, runner.runner_id)


async def test_other_sessions_are_no_chats(platform: Platform) -> None:
    await platform.deploy(mode=Mode.VOICE)
    runner = await platform.runner()
    assignment = await assigned(runner, await platform.start())
    assert (assignment.chat, assignment.agent.mode) == (False, Mode.VOICE)


async def test_a_conversation_is_ready_without_credentials(platform: Platform) -> None:
    await platform.deploy()
    await platform.runner()
    state = await platform.until(await start_chat(platform), status="ready")
    assert "credentials" not in state
    assert "retry_after_ms" not in state


async def test_nobody_has_to_join_a_conversation(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    session_id = await start_chat(platform)
    await platform.until(session_id, status="ready")
    other = (await platform.hosted(runner))["session_id"]
    platform.clock.advance(121.0)
    platform.service.tick()
    await runner.heard(CancelSession, where=lambda message: message.session_id == other)
    assert session_id in runner.sessions
    assert [message.session_id for message in runner.received if isinstance(message, CancelSession)] == [
        other
    ]


async def test_nor_after_another_service_has_taken_over(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    session_id = await start_chat(platform)
    await platform.until(session_id, status="ready")
    await platform.stop_service()
    await platform.start_service()
    await eventually(lambda: runner.runner_id in platform.coordinator.runners)
    platform.clock.advance(121.0)
    platform.service.tick()
    hosted = platform.hosted_by(session_id)
    assert hosted is not None
    assert hosted.claimed
    assert not any(isinstance(message, CancelSession) for message in runner.received)


async def test_a_join_token_for_a_conversation_is_refused(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    session_id = await start_chat(platform)
    await platform.until(session_id, status="ready")
    signaling_url = (await platform.hosted(runner))["signaling_url"]
    token = platform.tokens.issue(session_id, room_id_of(session_id)).token
    with pytest.raises(InvalidStatus) as refusal:
        await connect(f"{signaling_url}?token={token}")
    assert refusal.value.response.status_code == 401


@pytest.mark.states("sem-chat/gateway/session")
async def test_a_forced_deploy_ends_only_conversations_of_something_older(platform: Platform) -> None:
    """A conversation's agent differs from the deployed one in its mode: that does not make it older."""
    agent = await platform.deploy(mode=Mode.VOICE)
    runner = await platform.runner()
    runner.obeys_cancel = False
    older = await start_chat(platform)
    await platform.until(older, status="ready")
    job = await platform.store.create_deployment(
        project_id=platform.project.id, build_id=agent.build_id, mode=DeployMode.FORCE
    )
    await platform.store.finish_deployment(
        job.id,
        status=DeploymentStatus.ACTIVE,
        error=None,
        agent=msgspec.structs.replace(agent, environment={"PLACE": "there"}),
    )
    newer = await start_chat(platform)
    await platform.until(newer, status="ready")
    platform.clock.advance(1.0)
    platform.service.tick()
    assert (await runner.heard(EndSession)).session_id == older
    await runner.close(older)
    async with asyncio.timeout(PATIENCE):
        while await platform.store.active_deployments():
            platform.clock.advance(1.0)
            platform.service.tick()
            await asyncio.sleep(0.005)
    assert [message.session_id for message in runner.received if isinstance(message, EndSession)] == [older]
    assert newer in runner.sessions
