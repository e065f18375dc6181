"""What becomes of sessions when their runner's link, their runner, or the service itself is lost."""

from __future__ import annotations

import pytest

from voicethere.errors.times import iso_from_epoch
from voicethere.testing.queue import sample_error
from voicethere.testing.scripted_runner import ScriptedRunner
from voicethere.wire.control_channel import EndReason
from voicethere.wire.queue import SessionEndedItem
from voicethere.wire.relay import AssignSession, CancelSession, PeerJoinedRoom, PeerLeftRoom, SignalFromPeer
from voicethere.wire.session_api import Mode, ProvisioningStatus

from .conftest import Peer, Platform, eventually

RUNNER_IS_THERE = {"type": "peer-joined", "peerId": "voice-agent-server"}
RUNNER_LEFT = {"type": "peer-left", "peerId": "voice-agent-server"}


def advance(platform: Platform, seconds: float) -> None:
    platform.clock.advance(seconds)
    platform.service.tick()


def missing(platform: Platform, session_id: str) -> bool:
    room = platform.hosted_by(session_id)
    return room is not None and room.missing_since is not None


def present(platform: Platform, session_id: str) -> bool:
    room = platform.hosted_by(session_id)
    return room is not None and room.missing_since is None


def ended(platform: Platform, session_id: str, reason: EndReason) -> SessionEndedItem:
    """The end of a session, as a runner queues it."""
    return SessionEndedItem(
        session_id=session_id,
        project_id=platform.project.id,
        end_reason=reason.value,
        failed=reason is EndReason.AGENT_ERROR,
        ended_at=iso_from_epoch(platform.clock.now()),
    )


async def test_clients_of_a_lost_runner_are_told_and_the_error_is_stored_once(platform: Platform) -> None:
    agent = await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner, customer_context={"user": "u-1", "note": "tell-nobody-this"})
    session_id = credentials["session_id"]
    client, observer = await platform.peer(credentials, "client-1"), await platform.peer(credentials, "obs")
    for peer, count in ((client, 2), (observer, 2)):
        for _ in range(count):
            await peer.hear()

    await runner.aclose()
    await eventually(lambda: missing(platform, session_id))
    advance(platform, 2.9)
    assert platform.hosted_by(session_id) is not None
    advance(platform, 0.2)

    envelope = await client.hear()
    assert envelope == {
        "type": "session_error",
        "code": "RUNNER_INTERNAL",
        "message": "The service has a problem of its own. It is not your fault.",
        "session_id": session_id,
        "project_id": platform.project.id,
        "build_id": agent.build_id,
        "recoverable": False,
        "customer_context": {"user": "u-1", "note": "[redacted]"},
        "occurred_at": iso_from_epoch(platform.clock.now()),
    }
    assert await client.hear() == RUNNER_LEFT
    assert await observer.hear() == RUNNER_LEFT
    assert (await client.closed())[0] == 1000
    assert (await observer.closed())[0] == 1000

    (row,) = await platform.errors(session_id)
    assert (row.source, row.code, row.recoverable) == ("runner", "RUNNER_INTERNAL", False)
    assert row.customer_context == envelope["customer_context"]
    assert row.details["runner_id"] == runner.runner_id
    state = await platform.poll(session_id)
    assert (state["end_reason"], bool(state["ended_at"])) == ("error", True)
    assert (await platform.store.get_session(session_id)).failed  # type: ignore[union-attr]

    # It was not dead after all: it must let go of what is over.
    await platform.link(runner)
    assert (await runner.heard(CancelSession)).session_id == session_id


async def test_a_link_that_comes_back_in_time_costs_nothing(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    session_id = credentials["session_id"]
    early, leaving = await platform.peer(credentials, "client-1"), await platform.peer(credentials, "obs")
    for peer in (early, leaving):
        for _ in range(2):
            await peer.hear()
    await runner.heard(PeerJoinedRoom, count=2)

    await runner.aclose()
    await eventually(lambda: missing(platform, session_id))
    late = await platform.peer(credentials, "client-2")
    for _ in range(3):
        await late.hear()
    await late.send(
        {
            "type": "ice-candidate",
            "room": credentials["room_id"],
            "peerId": "client-2",
            "targetPeerId": "voice-agent-server",
            "candidate": None,
        }
    )
    await eventually(lambda: platform.service.gateway.ignored.get("runner_away") == 1)
    await leaving.aclose()
    assert await early.hear() == {"type": "peer-joined", "peerId": "client-2"}
    assert await early.hear() == {"type": "peer-left", "peerId": "obs"}
    advance(platform, 2.0)

    await platform.link(runner)
    # It hears of who came and who went meanwhile, and of nobody twice.
    assert (await runner.heard(PeerJoinedRoom, count=3)).peer_id == "client-2"
    assert (await runner.heard(PeerLeftRoom)).peer_id == "obs"
    assert present(platform, session_id)
    advance(platform, 60.0)
    text = await runner.offer(session_id, credentials["room_id"], "client-1")
    assert "offer" in text
    assert (await early.hear())["type"] == "offer"
    assert len([m for m in runner.received if isinstance(m, PeerJoinedRoom)]) == 3


async def test_a_session_that_ended_while_its_runner_was_away_is_not_an_error(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    session_id = credentials["session_id"]
    peer = await platform.peer(credentials)
    await peer.hear()
    await runner.aclose()
    await eventually(lambda: missing(platform, session_id))
    await platform.queue.put([ended(platform, session_id, EndReason.CLIENT_CLOSE_SIGNAL)])
    await platform.errors(session_id, count=0)
    runner.sessions.clear()
    await platform.link(runner)
    advance(platform, 3.0)
    assert (await peer.closed())[0] == 1000
    assert (await platform.poll(session_id))["end_reason"] == "client_close_signal"
    await platform.errors(session_id, count=0)


async def test_a_dead_runners_last_words_count_although_they_are_stored_late(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    session_id = credentials["session_id"]
    await platform.worker.stop()
    last_words = sample_error(session_id, platform.project.id)
    await platform.queue.put([last_words, ended(platform, session_id, EndReason.AGENT_ERROR)])
    await runner.aclose()
    await eventually(lambda: missing(platform, session_id))
    advance(platform, 4.0)
    room = platform.hosted_by(session_id)
    assert room is not None
    await eventually(lambda: not room.settling)
    assert platform.hosted_by(session_id) is room  # not judged yet

    batch = await platform.queue.receive(limit=10, wait_seconds=1.0)
    await platform.store.commit_batch([d.item for d in batch if d.item is not None], [])
    await platform.queue.acknowledge([d.position for d in batch])
    advance(platform, 0.25)
    await eventually(lambda: platform.hosted_by(session_id) is None)
    (row,) = await platform.errors(session_id)
    assert row.code == "AGENT_HANDLER_FAILED"


async def test_a_stuck_worker_does_not_keep_clients_in_the_dark(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    peer = await platform.peer(credentials)
    await peer.hear()
    await platform.worker.stop()
    await platform.queue.put([sample_error()])
    await runner.aclose()
    await eventually(lambda: missing(platform, credentials["session_id"]))
    advance(platform, 13.0)
    assert (await peer.hear())["code"] == "RUNNER_INTERNAL"


async def test_a_runner_that_restarts_under_its_name_has_lost_its_sessions(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    peer = await platform.peer(credentials)
    await peer.hear()
    await runner.aclose()
    runner.sessions.clear()
    await platform.link(runner)
    await eventually(lambda: missing(platform, credentials["session_id"]))
    advance(platform, 3.0)
    assert (await peer.hear())["code"] == "RUNNER_INTERNAL"
    (row,) = await platform.errors(credentials["session_id"])
    assert row.code == "RUNNER_INTERNAL"


async def test_one_runners_loss_is_not_anothers(platform: Platform) -> None:
    await platform.deploy()
    dying = await platform.runner("dying", capacity=9)
    lost = await platform.hosted(dying)
    living = await platform.runner("living", capacity=99)
    kept = await platform.hosted(living)
    peer = await platform.peer(kept)
    await peer.hear()
    await dying.aclose()
    await eventually(lambda: missing(platform, lost["session_id"]))
    advance(platform, 3.0)
    await platform.errors(lost["session_id"])
    await living.offer(kept["session_id"], kept["room_id"], "client-1")
    assert (await peer.hear())["type"] == "offer"


async def test_a_runner_whose_process_is_known_to_be_dead_gets_no_grace(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    session_id = credentials["session_id"]
    peer = await platform.peer(credentials)
    await peer.hear()
    platform.service.runner_died(runner.runner_id)
    # The end of its link is not read yet: what it had said before that may still come.
    advance(platform, 0.25)
    assert present(platform, session_id)
    await runner.aclose()
    await eventually(lambda: missing(platform, session_id))
    advance(platform, 0.25)
    assert (await peer.hear())["code"] == "RUNNER_INTERNAL"
    await platform.errors(session_id)


async def test_a_death_that_is_known_after_the_link_was_lost_ends_the_grace(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    peer = await platform.peer(credentials)
    await peer.hear()
    await runner.aclose()
    await eventually(lambda: missing(platform, credentials["session_id"]))
    platform.service.runner_died(runner.runner_id)
    advance(platform, 0.25)
    assert (await peer.hear())["code"] == "RUNNER_INTERNAL"
    await platform.errors(credentials["session_id"])


async def test_a_runner_that_is_linked_and_silent_is_cut_off(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    session_id = credentials["session_id"]
    peer = await platform.peer(credentials)
    await peer.hear()
    advance(platform, 1.0)
    await _beat(platform, runner)
    for _ in range(4):
        advance(platform, 1.0)
    assert present(platform, session_id)

    relay = platform.directory / "relay.sock"
    relay.rename(relay.with_suffix(".away"))  # it hangs, and does not link itself again
    advance(platform, 1.0)
    await eventually(lambda: missing(platform, session_id))
    advance(platform, 0.25)
    assert (await peer.hear())["code"] == "RUNNER_INTERNAL"
    (row,) = await platform.errors(session_id)
    assert row.code == "RUNNER_INTERNAL"

    relay.with_suffix(".away").rename(relay)
    assert (await runner.heard(CancelSession)).session_id == session_id
    await eventually(lambda: runner.runner_id in platform.coordinator.runners)


async def test_a_silent_runner_that_was_only_slow_keeps_its_sessions(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    session_id = credentials["session_id"]
    for _ in range(6):
        advance(platform, 1.0)
    await eventually(lambda: runner.runner_id not in platform.coordinator.runners)
    await eventually(lambda: runner.runner_id in platform.coordinator.runners)
    advance(platform, 10.0)
    assert present(platform, session_id)


async def test_a_service_that_was_held_up_does_not_blame_its_runners(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    advance(platform, 0.25)
    advance(platform, 60.0)
    assert runner.runner_id in platform.coordinator.runners
    assert present(platform, credentials["session_id"])


async def _beat(platform: Platform, runner: ScriptedRunner) -> None:
    await runner.beat()
    silences = platform.coordinator.hosting._silences
    await eventually(lambda: silences._silent[runner.runner_id] == 0.0)


# ---------------------------------------------------------------------- the service restarts


async def test_sessions_live_through_a_restart_of_the_service(platform: Platform) -> None:
    await platform.deploy(mode=Mode.DATA)
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    session_id = credentials["session_id"]
    before = await platform.peer(credentials)
    await before.hear()

    await platform.stop_service()
    assert (await before.closed())[0] == 1012
    await platform.start_service()
    await eventually(lambda: present(platform, session_id))

    # The old token is still good: tokens are stateless, and the room is there again.
    url_now = (await platform.poll(session_id))["credentials"]
    assert url_now["mode"] == "data"
    assert url_now["room_id"] == credentials["room_id"]
    again = await platform.peer(url_now, token=credentials["join_token"])
    assert await again.hear() == RUNNER_IS_THERE
    await runner.heard(PeerJoinedRoom, count=2)
    await runner.offer(session_id, credentials["room_id"], "client-1")
    assert (await again.hear())["type"] == "offer"
    await _answers(again, credentials["room_id"])
    await runner.heard(SignalFromPeer)
    await runner.close(session_id)
    assert (await again.closed())[0] == 1000


async def _answers(peer: Peer, room_id: str) -> None:
    await peer.send(
        {
            "type": "answer",
            "room": room_id,
            "peerId": "client-1",
            "targetPeerId": "voice-agent-server",
            "sdp": {"type": "answer", "sdp": "v=0"},
        }
    )


async def test_a_client_may_be_back_before_the_runner(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    await platform.stop_service()
    await runner.aclose()
    await platform.start_service()
    url_now = (await platform.poll(credentials["session_id"]))["credentials"]
    peer = await platform.peer(url_now)
    await eventually(lambda: platform.service._rooms.get(credentials["session_id"]).peers != {})  # type: ignore[union-attr]
    await platform.link(runner)
    assert await peer.hear() == RUNNER_IS_THERE
    assert (await runner.heard(PeerJoinedRoom)).peer_id == "client-1"


async def test_a_runner_that_died_with_the_service_is_noticed(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    await runner.aclose()
    await platform.stop_service()
    await platform.start_service()
    advance(platform, 3.0)
    (row,) = await platform.errors(credentials["session_id"])
    assert row.code == "RUNNER_INTERNAL"


async def test_jobs_begin_anew_and_a_hosted_one_is_recognized(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner(capacity=1)
    runner.answer = None
    assigned = await platform.start()
    await runner.heard(AssignSession)
    waiting = await platform.start()
    await platform.until(waiting, status="waiting")
    await platform.stop_service()
    await runner.aclose()
    runner.sessions.append(assigned)  # it accepted while nobody listened
    await platform.start_service()
    await platform.link(runner)
    await platform.until(assigned, status="ready")
    await platform.until(waiting, status="waiting", queue_position=1)
    await runner.close(assigned)
    runner.answer = True
    assert (await runner.heard(AssignSession, count=2)).session_id == waiting


async def test_a_failed_job_whose_error_was_not_queued_is_queued_after_a_restart(platform: Platform) -> None:
    platform.queue.unavailable = "the disk is full"
    session_id = await platform.start()
    await platform.until(session_id, status="failed")
    await platform.stop_service()
    platform.queue.unavailable = None
    await platform.start_service()
    (row,) = await platform.errors(session_id)
    assert row.code == "PROVISIONING_FAILED"
    # And not a second time, although the next process cannot know.
    await platform.stop_service()
    await platform.start_service()
    await platform.errors(session_id, count=1)


async def test_an_end_before_ready_was_written_down_is_a_failure_to_who_polls(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    runner.answer = None
    session_id = await platform.start()
    await runner.heard(AssignSession)
    await platform.queue.put([ended(platform, session_id, EndReason.AGENT_ERROR)])
    await platform.errors(session_id, count=0)
    state = await platform.poll(session_id)
    assert state["status"] == ProvisioningStatus.FAILED.value
    assert state["failure_code"] == "ORCHESTRATOR_ERROR"


@pytest.mark.parametrize("after_accepting", [True, False])
async def test_a_session_that_is_not_ours_is_let_go(platform: Platform, after_accepting: bool) -> None:
    runner = await platform.runner()
    if after_accepting:
        await runner.accept("nobody-asked")
    else:
        await runner.aclose()
        runner.sessions.append("nobody-asked")
        await platform.link(runner)
    assert (await runner.heard(CancelSession)).session_id == "nobody-asked"
