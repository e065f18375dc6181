"""Junk on the signaling socket and on both channels: answered as the contract says, and nothing breaks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.e2e.agents import ECHO
from tests.e2e.waiting import eventually
from voicethere.client import (
    BinaryMessage,
    Credentials,
    Session,
    SessionErrorEnvelope,
    connect_session,
    start_session,
)
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

ANSWER_SECONDS = 20.0


class Heard:
    """What a client gets."""

    def __init__(self) -> None:
        self.errors: list[SessionErrorEnvelope] = []
        self.messages: asyncio.Queue[Any] = asyncio.Queue()
        self.binary: asyncio.Queue[BinaryMessage] = asyncio.Queue()

    async def message(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(ANSWER_SECONDS):
            while (message := await self.messages.get()).get("type") != kind:
                pass
        return dict(message)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def deployed(operator: Operator) -> Deployed:
    return await operator.deploy(ECHO, name="echo", mode="data")


async def started(platform: RunningPlatform, deployed: Deployed) -> Credentials:
    provision = await start_session(platform.base_url, deployed.project_id, api_key=deployed.client_key)
    assert provision.credentials is not None, provision
    return provision.credentials


async def still_works(session: Session, heard: Heard) -> None:
    session.send_chat("still there?")
    assert (await heard.message("echo"))["text"] == "still there?"


class TestChannels:
    @pytest.fixture
    def heard(self) -> Heard:
        return Heard()

    @pytest_asyncio.fixture(loop_scope="module")
    async def session(
        self, platform: RunningPlatform, deployed: Deployed, heard: Heard
    ) -> AsyncIterator[Session]:
        credentials = await started(platform, deployed)
        async with connect_session(
            credentials,
            on_session_error=heard.errors.append,
            on_control_message=heard.messages.put_nowait,
            on_binary=heard.binary.put_nowait,
        ) as connected:
            yield connected
        assert heard.errors == []

    async def test_everything_that_is_not_ours_reaches_the_agent_as_it_is(
        self, session: Session, heard: Heard
    ) -> None:
        for text, kind in [
            ("not json", "str"),
            ('{"broken": ', "str"),
            ("[1, 2]", "list"),
            ('{"type": "order", "n": 1}', "dict"),
            ("null", "NoneType"),
            ('{"type": 7}', "dict"),
            ('{"type": "chat", "text": 7}', "dict"),
            ("\u0000\ufffd\U0001f600", "str"),
            ("[" * 5000, "str"),
        ]:
            session.send_text(text)
            got = await heard.message("got")
            assert (got["raw"], got["kind"]) == (text[:200], kind)
        await still_works(session, heard)

    async def test_binary_frames_reach_the_agent_with_their_channel(
        self, session: Session, heard: Heard
    ) -> None:
        for channel in ("control", "sync"):
            session.send_binary(b"\x00\xff junk", channel)
            async with asyncio.timeout(ANSWER_SECONDS):
                assert await heard.binary.get() == BinaryMessage(b"\x00\xff junk", channel)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ('{"type": "session_hello"}', "session_hello"),
            ('{"type": "session_hello", "customer_context": [1]}', "session_hello"),
            ('{"type": "session_close", "reason": 5}', "session_close"),
            ('{"type": "speak", "text": "hi"}', "clients ask for speech"),
            (json.dumps({"type": "session_hello", "customer_context": {"a": "x" * 9000}}), "8,192"),
            (
                json.dumps(
                    {"type": "session_hello", "customer_context": json.loads('{"a":' * 9 + "1" + "}" * 9)}
                ),
                "8 levels",
            ),
        ],
    )
    async def test_our_own_messages_in_a_wrong_shape_are_refused_visibly(
        self, session: Session, heard: Heard, text: str, reason: str
    ) -> None:
        session.send_text(text)
        refused = await heard.message("message_refused")
        assert reason in refused["reason"], refused
        await still_works(session, heard)


class TestSignaling:
    async def test_a_bad_token_is_401_before_the_upgrade(
        self, platform: RunningPlatform, deployed: Deployed
    ) -> None:
        credentials = await started(platform, deployed)
        for token in ("", "nonsense", credentials.join_token[:-3] + "abc", "a.b.c"):
            with pytest.raises(InvalidStatus) as refused:
                await websockets.connect(f"{credentials.signaling_url}?token={token}")
            assert refused.value.response.status_code == 401

    async def test_junk_on_the_socket_is_ignored_and_the_session_goes_on(
        self, platform: RunningPlatform, deployed: Deployed
    ) -> None:
        credentials = await started(platform, deployed)
        address = f"{credentials.signaling_url}?token={credentials.join_token}"
        async with websockets.connect(address) as junk:
            for text in (
                "not json",
                "{}",
                '{"type": 4}',
                '{"type": "offer"}',
                "[]",
                '{"type": "join", "room": 3}',
            ):
                await junk.send(text)
            await junk.send(b"\x00\x01")
            await junk.send(json.dumps({"type": "join", "room": "another room", "peerId": "client-x"}))
            await junk.send(
                json.dumps({"type": "join", "room": credentials.room_id, "peerId": "voice-agent-server"})
            )
            await junk.send(json.dumps({"type": "join", "room": credentials.room_id, "peerId": "watcher"}))
            async with asyncio.timeout(ANSWER_SECONDS):
                assert json.loads(await junk.recv()) == {
                    "type": "peer-joined",
                    "peerId": "voice-agent-server",
                }
            for sdp in ("v=0", {"type": "answer", "sdp": "junk"}):
                await junk.send(
                    json.dumps(
                        {
                            "type": "answer",
                            "room": credentials.room_id,
                            "peerId": "watcher",
                            "targetPeerId": "voice-agent-server",
                            "sdp": sdp,
                        }
                    )
                )
            heard = Heard()
            async with connect_session(
                credentials,
                on_session_error=heard.errors.append,
                on_control_message=heard.messages.put_nowait,
            ) as session:
                await still_works(session, heard)
        assert heard.errors == []

    async def test_a_flooding_socket_is_closed_with_1008(
        self, platform: RunningPlatform, deployed: Deployed
    ) -> None:
        credentials = await started(platform, deployed)
        address = f"{credentials.signaling_url}?token={credentials.join_token}"
        async with websockets.connect(address) as flood:
            with pytest.raises(ConnectionClosed) as closed:
                await self._flood(flood)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008

    async def _flood(self, socket: websockets.ClientConnection) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            for _ in range(5_000):
                await socket.send("junk")
            await socket.recv()

    async def test_after_the_end_the_token_is_refused(
        self, platform: RunningPlatform, operator: Operator, deployed: Deployed
    ) -> None:
        credentials = await started(platform, deployed)
        address = f"{credentials.signaling_url}?token={credentials.join_token}"
        async with websockets.connect(address) as other, connect_session(credentials) as session:
            session.send_chat("raise")
            async with asyncio.timeout(ANSWER_SECONDS):
                await session.closed
                # The service itself closes the other: it knows by now, whoever stores it first.
                await other.wait_closed()
        await eventually(
            "the session's end",
            lambda: operator.session(deployed.project_id, credentials.session_id),
            lambda row: row["status"] == "failed",
        )
        with pytest.raises(InvalidStatus) as refused:
            await websockets.connect(address)
        assert refused.value.response.status_code == 401


class TestKeys:
    async def test_unknown_and_foreign_projects_look_the_same(
        self, platform: RunningPlatform, operator: Operator, deployed: Deployed
    ) -> None:
        other = await operator.deploy(ECHO, name="other", mode="data")
        answers = []
        async with httpx.AsyncClient(base_url=platform.base_url) as http:
            for project in (other.project_id, "00000000-0000-4000-8000-000000000000", "nonsense"):
                answer = await http.post(
                    "/v1/sessions",
                    json={"project_id": project},
                    headers={"Authorization": f"Bearer {deployed.client_key}"},
                )
                answers.append((answer.status_code, answer.json()["error"]["code"]))
                assert answer.headers["x-request-id"] == answer.json()["error"]["request_id"]
            assert set(answers) == {(404, "NOT_FOUND")}

            anonymous = await http.post("/v1/sessions", json={"project_id": deployed.project_id})
            assert anonymous.status_code == 401
            elsewhere = await http.get(
                "/api/v1/projects", headers={"Authorization": f"Bearer {deployed.client_key}"}
            )
            assert elsewhere.status_code == 403

    async def test_an_oversized_context_is_refused_with_its_limit(
        self, platform: RunningPlatform, deployed: Deployed
    ) -> None:
        async with httpx.AsyncClient(base_url=platform.base_url) as http:
            answer = await http.post(
                "/v1/sessions",
                json={"project_id": deployed.project_id, "customer_context": {"a": "x" * 9000}},
                headers={"Authorization": f"Bearer {deployed.client_key}"},
            )
        assert answer.status_code == 422
        assert "8,192" in answer.json()["error"]["message"]
