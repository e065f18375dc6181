"""Sockets of conversations: who gets one, what is sent on it, in which order, and how it ends."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import InvalidStatus

from tests.e2e.waiting import eventually, eventually_true
from tests.integration.gateway.conftest import IMPATIENT, SETTINGS, Served, World
from tests.integration.gateway.talking import ChatApi, assert_numbered, of_type, says, upsert
from voicethere.adapters.relay.shared import HubView
from voicethere.adapters.store.store import StoreUnavailable
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.control_channel import EndReason
from voicethere.wire.control_plane import KeyKind
from voicethere.wire.relay import (
    ChatClosed,
    ChatFailure,
    ChatFrames,
    ChatMessage,
    ChatPassed,
    ChatStreamEnd,
    ChatStreamStart,
    ChatStreamText,
)
from voicethere.wire.settings import ProjectSettings


async def refused(api: ChatApi, url: str, **options: Any) -> tuple[int, str, str]:
    """Status, code and words of a socket that is not opened."""
    from websockets.asyncio.client import connect

    with pytest.raises(InvalidStatus) as caught:
        await connect(url, additional_headers=api.headers, **options)
    answer = caught.value.response
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-request-id"]
    return answer.status_code, answer.headers["x-error-code"], (answer.body or b"").decode()


def message(session_id: str, number: int, text: str) -> ChatMessage:
    return ChatMessage(speech_id=f"{session_id}-{number}", text=text)


@pytest.mark.states(
    "sem-chat/get-ws",
    "sem-chat/gateway/speak-stream",
    "sem-chat/gateway/seq",
    "sem-chat/text/full-content",
    "sem-chat/text/one-id",
)
async def test_a_reply_is_sent_as_it_is_made(world: World, api: ChatApi) -> None:
    """sem-chat: "`speak` is an assistant message, streamed when it is given a stream"."""
    talker = await api.listen("c")
    session_id = await world.conversation(api, "c", "hello")
    name = f"{session_id}-1"
    await world.chats.say(
        session_id,
        ChatStreamStart(speech_id=name),
        ChatStreamText(speech_id=name, delta="One. ", cumulative="One. "),
        ChatStreamText(speech_id=name, delta="Two.", cumulative="One. Two."),
        ChatStreamEnd(speech_id=name, text="One. Two.", complete=True),
    )
    await talker.until(says("assistant", "One. Two."))
    live = talker.numbered
    assert_numbered(live)
    assert live[0]["seq"] == 1
    assert [event["type"] for event in live if event["type"] != "timeline.upsert"] == [
        "llm.start",
        "llm.delta",
        "llm.delta",
        "llm.final",
    ]
    assert {event["id"] for event in live[1:]} == {name}
    shown = [found["props"]["content"] for event in live if (found := upsert(event))]
    assert shown == ["hello", "One. ", "One. Two.", "One. Two."]


@pytest.mark.states("sem-chat/text/echo-first", "sem-chat/gateway/sockets", "sem-chat/gateway/seq")
async def test_the_users_words_come_before_the_agents_on_every_socket(world: World, api: ChatApi) -> None:
    """sem-chat: "several sockets on one conversation": all are told the same, in the same order."""
    talkers = [await api.listen("c") for _ in range(3)]
    session_id = await world.conversation(api, "c", "hello")
    await world.chats.say(
        session_id, *(message(session_id, number, f"line {number}") for number in range(20))
    )
    for talker in talkers:
        await talker.until(says("assistant", "line 19"))
        assert_numbered(talker.numbered)
    assert talkers[0].numbered == talkers[1].numbered == talkers[2].numbered
    first = upsert(talkers[0].numbered[0])
    assert first is not None
    assert first["props"]["role"] == "user"


@pytest.mark.states("sem-chat/connect/latest-again")
async def test_a_socket_that_opens_late_is_told_how_things_stand(world: World, api: ChatApi) -> None:
    """sem-chat: "the gateway sends the conversation's latest entities again when a socket opens"."""
    session_id = await world.conversation(api, "c", "hello")
    name = f"{session_id}-1"
    await world.chats.say(
        session_id,
        ChatStreamStart(speech_id=name),
        ChatStreamText(speech_id=name, delta="Half", cumulative="Half"),
    )
    talker = await api.listen("c")
    streaming = await talker.until(lambda event: (upsert(event) or {}).get("id") == name)
    assert "seq" not in streaming
    entity = upsert(streaming)
    assert entity is not None
    assert (entity["props"]["content"], entity["props"]["streaming"]) == ("Half", True)
    await world.chats.say(session_id, ChatStreamEnd(speech_id=name, text="Half.", complete=True))
    await talker.until(says("assistant", "Half."))
    assert_numbered(talker.numbered)
    snapshot = await api.timeline("c")
    assert talker.numbered[0]["seq"] > 1
    assert snapshot["version"] == max(
        int(event["data"]["version"]) for event in talker.events if upsert(event)
    )


@pytest.mark.states("sem-chat/text/end-on-reconnect")
async def test_the_end_of_a_stream_is_told_again_to_who_comes_back(world: World, api: ChatApi) -> None:
    """sem-chat: "a stream cut off by a lost socket must not stay open"."""
    talker = await api.listen("c")
    session_id = await world.conversation(api, "c")
    name = f"{session_id}-1"
    await world.chats.say(session_id, ChatStreamStart(speech_id=name))
    await talker.until(of_type("llm.start"))
    await talker.aclose()
    await world.chats.say(session_id, ChatStreamEnd(speech_id=name, text="Done.", complete=True))
    back = await api.listen("c")
    await back.until(says("assistant", "Done."))


@pytest.mark.states("sem-chat/gateway/seq", "sem-chat/gateway/sockets")
async def test_what_is_said_twice_or_by_two_is_told_once(world: World, served: Served, api: ChatApi) -> None:
    """Two gateways hear all that sessions say; each output is stored once, and told once on each socket."""
    other = await world.gateway()
    there = world.client(other)
    here_talker, there_talker = await api.listen("c"), await there.listen("c")
    session_id = await world.conversation(api, "c", "hello")
    await there.accepted("c", "hello again")
    for number in range(1, 31):
        body = message(session_id, number, f"line {number}")
        await world.chats.send(session_id, number, body)
        if number % 3 == 0:
            await world.chats.send(session_id, number, body, again=True)
            await world.chats.send(session_id, number - 1, message(session_id, 0, "never"), again=True)
    await world.chats.stored(session_id, 30)
    for talker in (here_talker, there_talker):
        await talker.until(says("assistant", "line 30"))
        assert_numbered(talker.numbered)
    assert here_talker.numbered == there_talker.numbered
    contents = [entity["props"]["content"] for entity in (await api.timeline("c"))["entities"]]
    assert sorted(contents) == sorted(["hello", "hello again", *(f"line {n}" for n in range(1, 31))])


async def test_frames_that_are_lost_between_gateways_are_made_up_for(world: World, api: ChatApi) -> None:
    """With a lost last frame there is no gap to see: the gateways compare themselves with the database."""
    other = await world.gateway(IMPATIENT)
    talker = await world.client(other).listen("c")
    session_id = await world.conversation(api, "c", "hello")
    await talker.until(says("user", "hello"))

    async def taken() -> bool:
        return not await world.store.pending_prompts(world.project_id, "c")

    # Or the other one might see to it, and so care for the session again.
    await eventually("the prompt is taken", taken)

    async def lose(notice: object) -> None:
        assert isinstance(notice, ChatFrames)

    # The one that stores what is said tells nobody.
    other.gateway.outputs.forget(session_id)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HubView, "publish", lambda self, notice: lose(notice))
        await world.chats.say(session_id, message(session_id, 1, "the last words"))
        told = await talker.until(says("assistant", "the last words"))
    assert "seq" not in told
    await world.chats.say(session_id, message(session_id, 2, "and more"))
    assert "seq" in await talker.until(says("assistant", "and more"))


async def test_outputs_out_of_order_wait_for_each_other(world: World, api: ChatApi) -> None:
    talker = await api.listen("c")
    session_id = await world.conversation(api, "c")
    await world.chats.send(session_id, 2, message(session_id, 2, "second"))
    await world.chats.send(session_id, 1, message(session_id, 1, "first"))
    await world.chats.stored(session_id, 1)
    await world.chats.send(session_id, 2, message(session_id, 2, "second"), again=True)
    await world.chats.stored(session_id, 2)
    await talker.until(says("assistant", "second"))
    said = [(upsert(event) or {})["props"]["content"] for event in talker.numbered]
    assert said == ["hello", "first", "second"]


@pytest.mark.states("sem-chat/gateway/restart")
async def test_a_conversation_that_nobody_cares_for_is_stored_all_the_same(world: World) -> None:
    first = await world.gateway()
    session_id = await world.conversation(world.client(first), "c", "hello")
    await first.stop()
    second = await world.gateway()
    body = message(session_id, 1, "Is anybody there?")
    await world.chats.send(session_id, 1, body)
    await world.chats.send(session_id, 1, body, again=True)
    await world.chats.stored(session_id, 1)
    shown = await world.client(second).timeline("c")
    assert shown["entities"][-1]["props"]["content"] == "Is anybody there?"


@pytest.mark.states("sem-chat/gateway/send-sem", "sem-chat/gateway/send-other")
async def test_an_agents_own_messages(world: World, api: ChatApi) -> None:
    """sem-chat: "`send_to_client` of a SEM frame is passed on, of anything else becomes …"."""
    talker = await api.listen("c")
    session_id = await world.conversation(api, "c")
    frame = {"sem": True, "event": {"type": "log", "id": "l-1", "data": {"level": "info", "message": "x"}}}
    forged = {"sem": True, "event": {"type": "session.error", "id": "e", "data": {"code": "X"}}}
    await world.chats.say(
        session_id,
        ChatPassed(payload=json.dumps({"score": 3})),
        ChatPassed(payload=json.dumps(forged)),
        ChatPassed(payload=json.dumps(frame)),
    )
    await talker.until(of_type("log"))
    assert [event["data"] for event in talker.numbered if event["type"] == "agent.message"] == [{"score": 3}]
    assert not [event for event in talker.numbered if event["type"] == "session.error"]
    assert_numbered(talker.numbered)


@pytest.mark.states(
    "sem-chat/gateway/error-frame",
    "sem-chat/gateway/error-entity",
    "sem-chat/gateway/error-id",
    "sem-chat/text/end-before-error",
    "sem-chat/connect/not-closed-by-sessions",
    "sem-chat/gateway/next-session",
)
async def test_a_failure_is_told_and_stays_in_the_timeline(world: World, api: ChatApi) -> None:
    """sem-chat: "a `timeline.upsert` of kind `error` whose id is the error row's id"."""
    talker = await api.listen("c")
    session_id = await world.conversation(api, "c")
    name = f"{session_id}-1"
    envelope = SessionErrorEnvelope(
        code=SessionErrorCode.AGENT_HANDLER_FAILED.value, message="Sorry.", session_id=session_id
    )
    await world.chats.say(
        session_id,
        ChatStreamStart(speech_id=name),
        ChatFailure(error_id="row-1", envelope=envelope),
        ChatClosed(end_reason=EndReason.AGENT_ERROR),
    )
    told = await talker.until(of_type("session.error"))
    assert (told["id"], told["data"]["code"]) == ("row-1", "AGENT_HANDLER_FAILED")
    entity = await talker.until(lambda event: (upsert(event) or {}).get("kind") == "error")
    assert entity["data"]["entity"]["id"] == "row-1"
    types = [event["type"] for event in talker.numbered]
    assert types.index("llm.final") < types.index("session.error")
    assert (await api.timeline("c"))["entities"][-1]["id"] == "row-1"
    assert talker.close_code is None, "a session that ends closes no socket"
    again = await world.conversation(api, "c", "are you back?")
    assert again != session_id


@pytest.mark.states(
    "sem-chat/gateway/same-error-flow", "sem-chat/gateway/error-frame", "sem-chat/gateway/error-id"
)
async def test_a_session_that_ends_without_a_word_is_told_from_its_rows(world: World, api: ChatApi) -> None:
    talker = await api.listen("c")
    session_id = await world.conversation(api, "c")
    name = f"{session_id}-1"
    await world.chats.say(session_id, ChatStreamStart(speech_id=name))
    error_id = await world.chats.end(session_id, "error", error=SessionErrorCode.RUNNER_INTERNAL)
    told = await talker.until(of_type("session.error"))
    assert (told["id"], told["data"]["code"]) == (error_id, "RUNNER_INTERNAL")
    assert "operator" not in json.dumps(told)
    await talker.until(lambda event: (upsert(event) or {}).get("id") == error_id)
    assert_numbered(talker.numbered)
    assert [event["type"] for event in talker.numbered].count("llm.final") == 1


@pytest.mark.states("sem-chat/gateway/next-session")
async def test_a_prompt_that_a_clean_end_left_over_is_for_the_next_session(
    world: World, api: ChatApi
) -> None:
    """sem-chat: "A prompt after the session ended starts the next session of the conversation"."""
    world.chats.takes = False
    await api.accepted("c", "hello")
    first = await world.chats.prompted("hello")
    world.chats.takes = True
    world.chats.prompts.clear()
    await world.chats.say(first, ChatClosed(end_reason=EndReason.IDLE_TIMEOUT))
    second = await world.chats.prompted("hello")
    assert second != first
    assert [entity["props"]["content"] for entity in (await api.timeline("c"))["entities"]] == ["hello"]


async def test_a_prompt_of_a_session_that_failed_is_dropped_and_the_user_told(
    world: World, api: ChatApi
) -> None:
    world.chats.hosts = False
    talker = await api.listen("c")
    await api.accepted("c", "hello")
    await eventually_true("the session is wanted", lambda: bool(world.chats.sessions))
    error_id = await world.chats.end(
        world.chats.sessions[0], "error", error=SessionErrorCode.PROVISIONING_FAILED
    )
    told = await talker.until(of_type("session.error"))
    assert (told["id"], told["data"]["code"]) == (error_id, "PROVISIONING_FAILED")
    assert await world.store.pending_prompts(world.project_id, "c") == []
    world.chats.hosts = True
    assert await world.conversation(api, "c", "and now?") != world.chats.sessions[0]
    assert [prompt.text for prompt in world.chats.prompts] == ["and now?"]


@pytest.mark.states("sem-chat/gateway/restart")
async def test_prompts_survive_the_gateway_that_took_them(world: World) -> None:
    first = await world.gateway()
    world.chats.hosts = False
    await world.client(first).accepted("c", "hello")
    await eventually_true("the session is wanted", lambda: bool(world.chats.sessions))
    await first.stop()
    await world.gateway()
    await world.chats.make_ready(world.chats.sessions[0])
    assert await world.chats.prompted("hello") == world.chats.sessions[0]


def stalled(talker_connection: ClientConnection) -> None:
    """Read nothing more from the network."""
    talker_connection.transport.pause_reading()


@pytest.mark.states("sem-chat/gateway/slow-reader")
async def test_a_slow_reader_cannot_hurt_the_others(world: World, served: Served, api: ChatApi) -> None:
    """It is told the latest state when it reads again; the others notice nothing."""
    small = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, ("127.0.0.1", served.port))
    slow = await api.listen("c", sock=small, max_queue=1)
    quick = await api.listen("c")
    session_id = await world.conversation(api, "c", "hello")
    await slow.until(says("user", "hello"))
    stalled(slow.connection)
    text = "x" * 100_000
    for number in range(1, 121):
        await world.chats.say(session_id, message(session_id, number, f"{number} {text}"))
    await quick.until(says("assistant", f"120 {text}"))
    assert_numbered(quick.numbered)
    assert len(quick.numbered) == 121
    assert served.gateway.here.dropped > 0
    slow.connection.transport.resume_reading()
    await slow.until(says("assistant", f"120 {text}"))
    assert slow.close_code is None
    await world.chats.say(session_id, message(session_id, 121, "and on"))
    live = await slow.until(says("assistant", "and on"))
    assert "seq" in live


async def test_what_a_client_says_means_nothing(world: World, api: ChatApi) -> None:
    talker = await api.listen("c")
    await talker.connection.send("hello?")
    await talker.connection.send(b"\x00\x01")
    session_id = await world.conversation(api, "c")
    await world.chats.say(session_id, message(session_id, 1, "Hi."))
    await talker.until(says("assistant", "Hi."))
    await talker.connection.send("x" * 100_000)
    assert await talker.closed() == 1009


@pytest.mark.states(
    "sem-chat/keys/client",
    "sem-chat/keys/other",
    "sem-chat/keys/origins",
    "sem-chat/ids/required",
    "sem-chat/errors/plain",
    "sem-chat/errors/code",
)
async def test_who_may_listen(world: World, served: Served, api: ChatApi) -> None:
    """sem-chat: "chat clients that we did not write cannot add headers to a socket"."""
    url = served.url.replace("http", "ws")
    assert (await refused(api, f"{url}/c/vthc_wrong/ws?conv_id=c"))[:2] == (401, "UNAUTHORIZED")
    assert (await refused(api, f"{url}/c/{world.project_id}/ws?conv_id=c"))[:2] == (401, "UNAUTHORIZED")
    assert (await refused(api, f"{url}/c/{world.client_key}/ws"))[:2] == (422, "VALIDATION_FAILED")
    assert (await refused(api, f"{url}/c/{world.client_key}/ws?conv_id=%00"))[0] == 422
    assert (await refused(api, f"{url}/c/{world.client_key}/ws/more?conv_id=c"))[0] == 404
    fields = "&".join(f"f{number}=1" for number in range(100))
    assert (await refused(api, f"{url}/c/{world.client_key}/ws?{fields}"))[0] == 422
    operator = world.client(served, base=world.project_id, authorization=f"Bearer {world.org_key}")
    await operator.listen("c")
    await world.store.put_project_settings(
        world.project_id,
        ProjectSettings(allowed_origins=["https://shop.example"], require_issued_conversations=False),
    )
    page = await api.listen("c", origin="https://shop.example")
    assert page.close_code is None
    assert (await refused(api, api.ws_url("c"), origin="https://other.example"))[:2] == (403, "FORBIDDEN")
    await world.store.put_project_settings(
        world.project_id, ProjectSettings(require_issued_conversations=True)
    )
    assert (await refused(api, api.ws_url("invented")))[:2] == (404, "NOT_FOUND")


async def test_sockets_of_a_revoked_key_are_closed(world: World, served: Served) -> None:
    key = await world.new_key(KeyKind.CLIENT, world.project_id)
    key_id = (await world.store.list_keys(world.org_id))[-1].id
    theirs = await world.client(served, base=key).listen("c")
    ours = await world.client(served).listen("c")
    await world.store.revoke_key(world.org_id, key_id)
    assert await theirs.closed() == 1008
    assert "revoked" in theirs.close_reason
    assert ours.close_code is None


async def test_sockets_of_a_deleted_project_are_closed(world: World, served: Served) -> None:
    other = await world.store.create_project(org_id=world.org_id, name="other", slug="other")
    by_id = world.client(served, base=other.id, authorization=f"Bearer {world.org_key}")
    talker = await by_id.listen("c")
    session_id = await world.conversation(by_id, "c")
    assert await world.store.delete_project(other.id, org_id=world.org_id)
    assert await talker.closed() == 1008
    number = world.chats.number(session_id)
    await world.chats.send(session_id, number, message(session_id, 1, "to nobody"), again=True)
    await world.chats.stored(session_id, number)


async def test_there_are_only_so_many_sockets(world: World, served: Served, api: ChatApi) -> None:
    limits = SETTINGS.sockets
    same = [await api.listen("c") for _ in range(limits.of_conversation)]
    status, code, words = await refused(api, api.ws_url("c"))
    assert (status, code) == (429, "RATE_LIMITED")
    assert "conversation" in words
    for number in range(limits.of_project - limits.of_conversation):
        await api.listen(f"d-{number}")
    assert "project" in (await refused(api, api.ws_url("e")))[2]
    other = await world.store.create_project(org_id=world.org_id, name="other", slug="other")
    neighbour = world.client(served, base=await world.new_key(KeyKind.CLIENT, other.id))
    for number in range(limits.of_process - limits.of_project):
        await neighbour.listen(f"c-{number}")
    assert "gateway" in (await refused(neighbour, neighbour.ws_url("e")))[2]
    await same[0].aclose()
    await eventually_true("one socket is gone", lambda: len(served.gateway.here) < limits.of_process)
    await api.listen("c")


async def test_a_gateway_that_ends_sends_its_clients_elsewhere(world: World) -> None:
    served = await world.gateway()
    talker = await world.client(served).listen("c")
    await served.gateway.drain()
    assert await talker.closed() == 1001
    async with asyncio.timeout(20):  # `drain` waits for it, but not for ever
        await served.gateway.here.none_left.wait()


@pytest.mark.states("sem-chat/gateway/seq")
async def test_a_socket_opens_once_it_is_known_how_the_conversation_stands(
    served: Served, api: ChatApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So whoever opened a socket first and then said something sees every `seq` from 1 on."""

    async def away(_: object) -> list[str]:
        raise StoreUnavailable("it is away")

    with monkeypatch.context() as patch:
        patch.setattr(served.gateway, "catch_up", away)
        status, code, _words = await refused(api, api.ws_url("c"))
    assert (status, code) == (503, "UNAVAILABLE")
    assert len(served.gateway.here) == 0
    talker = await api.listen("c")
    await api.accepted("c", "hello")
    assert (await talker.until(says("user", "hello")))["seq"] == 1


async def test_a_slash_too_many_is_no_other_base(
    world: World, served: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bases are put together by hand: `https://host/` and `/c/{key}/` are the same as without the slashes."""
    for base in (f"{served.url}//c/{world.client_key}/", f"{served.url}/c//{world.client_key}"):
        api = world.client(served)
        api.base = base
        talker = await api.listen(base[-9:])
        await api.accepted(base[-9:], "hello")
        await talker.until(says("user", "hello"))
        assert len((await api.timeline(base[-9:]))["entities"]) == 1
    said = capsys.readouterr()
    assert world.client_key not in said.out + said.err
