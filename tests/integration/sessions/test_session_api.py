"""The session API over HTTP, line by line of session-api.md: requests, answers, keys, CORS."""

from __future__ import annotations

import asyncio
from typing import Any

import jwt
import pytest

from voicethere.errors.times import parse_iso
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.wire.control_plane import KeyKind, ValidationStatus
from voicethere.wire.relay import AssignSession
from voicethere.wire.session_api import IceServer, Mode

from .conftest import SERVICE_TOKEN, Platform

ORIGIN = {"Origin": "https://shop.example.com"}


def problem(answer: Any, status: int) -> tuple[str, str]:
    """Code and message of an error that has the contract's shape."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return error["code"], error["message"]


# ---------------------------------------------------------------------- the way it goes well


async def test_a_session_becomes_ready_with_credentials(platform: Platform) -> None:
    agent = await platform.deploy(mode=Mode.VOICE_DATA)
    runner = await platform.runner()
    answer = await platform.post(customer_context={"user": "u-1"})
    assert answer.status_code == 202
    session_id = answer.json()["session_id"]
    assert answer.json() == {"session_id": session_id, "status": "queued"}
    assert answer.headers["location"] == f"/v1/sessions/{session_id}"

    assignment = await runner.heard(AssignSession)
    assert assignment.session_id == session_id
    assert assignment.agent == agent
    assert assignment.customer_context == {"user": "u-1"}

    state = await platform.until(session_id, status="ready")
    credentials = state.pop("credentials")
    assert state == {
        "session_id": session_id,
        "project_id": platform.project.id,
        "build_id": agent.build_id,
        "status": "ready",
        "created_at": "2026-06-19T12:00:00.000Z",
        "updated_at": "2026-06-19T12:00:00.000Z",
        "completed_at": "2026-06-19T12:00:00.000Z",
    }
    token = credentials.pop("join_token")
    assert credentials == {
        "session_id": session_id,
        "mode": "voice+data",
        "signaling_url": f"ws://127.0.0.1:{platform.server.port}/v1/signaling",
        "room_id": assignment.room_id,
        "ice_servers": [],
        "expires_at": "2026-06-19T12:10:00.000Z",
    }
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["sid"] == session_id
    assert claims["room"] == assignment.room_id
    assert parse_iso(credentials["expires_at"]).timestamp() == claims["exp"]


async def test_a_synchronous_start_answers_with_the_credentials(platform: Platform) -> None:
    agent = await platform.deploy()
    platform.service.settings = SessionServiceSettings(sync_start_seconds=10.0)
    await platform.runner()
    answer = await platform.post(**{"async": False})
    assert answer.status_code == 200
    body = answer.json()
    assert body["project_id"] == platform.project.id
    assert body["build_id"] == agent.build_id
    assert set(body) == {
        "session_id",
        "mode",
        "join_token",
        "signaling_url",
        "room_id",
        "ice_servers",
        "expires_at",
        "project_id",
        "build_id",
    }
    peer = await platform.peer(body)
    assert await peer.hear() == {"type": "peer-joined", "peerId": "voice-agent-server"}


@pytest.mark.parametrize("service_settings", [SessionServiceSettings(poll_hold_seconds=60.0)])
async def test_a_poll_is_held_until_the_session_is_ready_but_not_while_it_waits_in_the_line(
    platform: Platform,
) -> None:
    await platform.deploy()
    runner = await platform.runner(capacity=1)
    runner.answer = None
    session_id = (await platform.post()).json()["session_id"]
    await runner.heard(AssignSession)
    polling = asyncio.create_task(platform.poll(session_id))
    waiting_id = (await platform.post()).json()["session_id"]
    await platform.until(waiting_id, status="waiting")
    assert not polling.done()
    await runner.accept(session_id)
    state = await asyncio.wait_for(polling, 10)
    assert state["status"] == "ready"
    assert state["credentials"]["session_id"] == session_id


async def test_a_synchronous_start_past_the_limit_is_a_202(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    runner.answer = None
    answer = await platform.post(**{"async": False})
    assert answer.status_code == 202
    session_id = answer.json()["session_id"]
    assert answer.json() == {"session_id": session_id, "status": "queued"}
    await platform.until(session_id, status="provisioning")
    await runner.accept(session_id)
    await platform.until(session_id, status="ready")


async def test_a_synchronous_start_that_fails_is_a_202_to_be_polled(platform: Platform) -> None:
    answer = await platform.post(**{"async": False})  # nothing is deployed
    assert answer.status_code == 202
    state = await platform.until(answer.json()["session_id"], status="failed")
    assert state["failure_code"] == "NOT_DEPLOYED"


@pytest.mark.parametrize(
    "service_settings",
    [
        SessionServiceSettings(
            public_base_url="https://voice.example.com",
            ice_servers=[IceServer(urls=["turn:turn.example.com"], username="u", credential="c")],
            tick_seconds=3600.0,
        )
    ],
)
async def test_credentials_hold_what_the_operator_configured(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner()
    credentials = await platform.hosted(runner)
    assert credentials["signaling_url"] == "wss://voice.example.com/v1/signaling"
    turn = [{"urls": ["turn:turn.example.com"], "username": "u", "credential": "c"}]
    assert credentials["ice_servers"] == turn
    assert runner.received[0].ice_servers == [  # type: ignore[union-attr]
        IceServer(urls=["turn:turn.example.com"], username="u", credential="c")
    ]


async def test_another_valid_build_runs_with_the_deployed_settings(platform: Platform) -> None:
    agent = await platform.deploy()
    build = await platform.new_build()
    runner = await platform.runner()
    session_id = await platform.start(build_id=build.id)
    assignment = await runner.heard(AssignSession)
    assert assignment.agent.build_id == build.id
    assert assignment.agent.settings == agent.settings
    state = await platform.until(session_id, status="ready")
    assert state["build_id"] == build.id


async def test_a_repeated_post_returns_the_same_session(platform: Platform) -> None:
    await platform.deploy()
    runner = await platform.runner(capacity=1)
    key = {"Idempotency-Key": "order-17"}
    first = await platform.start(headers=key)
    await platform.until(first, status="ready")
    # Nothing is free any more, and yet this is not a new session that would need a place.
    assert await platform.start(headers=key, wait_for_capacity=False) == first
    assert len(runner.sessions) == 1
    assert await platform.start(headers={"Idempotency-Key": "order-18"}) != first


# ---------------------------------------------------------------------- what is refused


async def test_without_a_good_key_nothing_is_told(platform: Platform) -> None:
    for authorization in ("", "Bearer", "Bearer vth_nobody", "Basic dTpw"):
        headers = {"Authorization": authorization}
        assert problem(await platform.post(headers=headers), 401)[0] == "UNAUTHORIZED"
        assert problem(await platform.http.get("/v1/sessions/x", headers=headers), 401)[0] == "UNAUTHORIZED"


@pytest.mark.states("sem-chat/keys/public-apis", "sem-chat/keys/one-project")
async def test_a_client_key_starts_and_polls_sessions_of_its_project_only(platform: Platform) -> None:
    await platform.deploy()
    await platform.runner()
    other = await platform.new_project("bank")
    other_session = await platform.start(project_id=other.id)
    as_client = {"Authorization": f"Bearer {platform.client_key}"}

    own = await platform.post(headers=as_client)
    assert own.status_code == 202
    polled = await platform.http.get(f"/v1/sessions/{own.json()['session_id']}", headers=as_client)
    assert polled.status_code == 200

    foreign = problem(await platform.post(project_id=other.id, headers=as_client), 404)
    unknown = problem(await platform.post(project_id="no-such", headers=as_client), 404)
    assert foreign == unknown
    foreign = problem(await platform.http.get(f"/v1/sessions/{other_session}", headers=as_client), 404)
    unknown = problem(await platform.http.get("/v1/sessions/no-such", headers=as_client), 404)
    assert foreign == unknown


async def test_a_project_of_another_org_is_not_there(platform: Platform) -> None:
    session_id = await platform.start()
    stranger = _AnotherOrg(platform)
    platform.service.knows_project = stranger.knows_project  # type: ignore[method-assign]
    foreign = problem(await platform.post(), 404)
    unknown = problem(await platform.post(project_id="no-such"), 404)
    assert foreign == unknown
    problem(await platform.http.get(f"/v1/sessions/{session_id}"), 404)


class _AnotherOrg:
    """There is one org on an embedded platform: the key is made to be of another one."""

    def __init__(self, platform: Platform) -> None:
        self._real = platform.service.knows_project

    async def knows_project(self, project_id: str, org_id: str | None) -> bool:
        return await self._real(project_id, "another-org")


async def test_service_credentials_start_nothing(platform: Platform) -> None:
    answer = await platform.post(headers={"Authorization": f"Bearer {SERVICE_TOKEN}"})
    assert problem(answer, 403)[0] == "FORBIDDEN"


BAD_FIELDS: list[tuple[dict[str, Any], str]] = [
    ({"project_id": 7}, "project_id"),
    ({"async": "yes"}, "async"),
    ({"wait_for_capacity": 1}, "wait_for_capacity"),
    ({"build_id": ["b"]}, "build_id"),
    ({"build_id": "no-such"}, "no such build"),
    ({"customer_context": "me"}, "customer_context"),
    ({"customer_context": {"text": "x" * 8192}}, "8,192"),
    ({"customer_context": {"a": {"b": {"c": {"d": {"e": {"f": {"g": {"h": {}}}}}}}}}}, "8 levels"),
    ({"headers": {"Idempotency-Key": "x" * 256}}, "255"),
]


async def test_bad_fields_are_named(platform: Platform) -> None:
    await platform.deploy()
    for body, words in BAD_FIELDS:
        code, message = problem(await platform.post(**body), 422)
        assert code == "VALIDATION_FAILED"
        assert words in message


async def test_a_missing_project_id_is_named(platform: Platform) -> None:
    code, message = problem(await platform.http.post("/v1/sessions", json={}), 422)
    assert code == "VALIDATION_FAILED"
    assert "project_id" in message


async def test_unknown_fields_are_ignored(platform: Platform) -> None:
    assert (await platform.post(colour="red")).status_code == 202


async def test_a_build_that_is_not_valid_is_refused(platform: Platform) -> None:
    await platform.deploy()
    build = await platform.new_build(status=ValidationStatus.INVALID)
    _, message = problem(await platform.post(build_id=build.id), 422)
    assert "invalid" in message


async def test_a_build_of_another_project_is_not_there(platform: Platform) -> None:
    await platform.deploy()
    other = await platform.new_project("bank")
    build = await platform.new_build(project_id=other.id)
    assert "no such build" in problem(await platform.post(build_id=build.id), 422)[1]


async def test_a_body_that_is_no_request_is_refused(platform: Platform) -> None:
    for content in (b"", b"{", b"[1]", b'"text"', b"\xff", b"[" * 20_000):
        answer = await platform.http.post(
            "/v1/sessions", content=content, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code in (400, 422)
        problem(answer, answer.status_code)


async def test_a_context_within_the_bounds_is_taken(platform: Platform) -> None:
    context = {"a": {"b": {"c": {"d": {"e": {"f": {"g": {}}}}}}}, "text": "x" * 8000}
    assert (await platform.post(customer_context=context)).status_code == 202


# ---------------------------------------------------------------------- browsers


async def test_a_page_of_another_origin_may_ask(platform: Platform) -> None:
    preflight = await platform.http.options(
        "/v1/sessions",
        headers=ORIGIN
        | {
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
            "Authorization": "",
        },
    )
    assert preflight.status_code in (200, 204)
    assert preflight.headers["access-control-allow-origin"] in ("*", ORIGIN["Origin"])
    allowed = preflight.headers["access-control-allow-headers"].lower()
    assert "authorization" in allowed
    assert "content-type" in allowed


async def test_errors_too_have_the_headers_that_a_page_needs(platform: Platform) -> None:
    for answer in (
        await platform.post(headers=ORIGIN | {"Authorization": "Bearer nobody"}),
        await platform.post(project_id="no-such", headers=ORIGIN),
        await platform.http.get("/v1/sessions/no-such", headers=ORIGIN),
        await platform.http.get("/v1/nothing", headers=ORIGIN),
    ):
        assert answer.status_code in (401, 404)
        assert answer.headers["access-control-allow-origin"] in ("*", ORIGIN["Origin"])


async def test_an_org_key_sees_all_projects_of_its_org(platform: Platform) -> None:
    another_key = await platform.new_key(KeyKind.ADMIN)
    other = await platform.new_project("bank")
    session_id = await platform.start(project_id=other.id)
    headers = {"Authorization": f"Bearer {another_key}"}
    answer = await platform.http.get(f"/v1/sessions/{session_id}", headers=headers)
    assert answer.status_code == 200
