"""Prompts, timelines and issued ids over HTTP: who may ask, what is taken, how a refusal reads."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.integration.gateway.conftest import SERVICE_TOKEN, SETTINGS, Served, World
from tests.integration.gateway.talking import ChatApi, says
from voicethere.adapters.store.records import Timeline
from voicethere.adapters.store.store import Store, StoreUnavailable
from voicethere.core.clock import SystemClock
from voicethere.core.conversation import MAX_PENDING_PROMPTS, MAX_PROMPT_CHARS
from voicethere.roles.gateway.gateway import SNAPSHOTS_AT_ONCE
from voicethere.wire.control_plane import KeyKind
from voicethere.wire.relay import ChatMessage
from voicethere.wire.settings import ProjectSettings


def refused(answer: httpx.Response, status: int, code: str) -> str:
    """The words of a refusal, which must be plain text for people, with its code in a header."""
    assert (answer.status_code, answer.headers["x-error-code"]) == (status, code), answer.text
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-request-id"]
    assert answer.text
    assert not answer.text.startswith("{")
    return answer.text


@pytest.mark.states(
    "sem-chat/post-chat",
    "sem-chat/get-timeline",
    "sem-chat/gateway/same-storage",
    "sem-chat/text/message-entity",
)
async def test_a_prompt_starts_a_session_that_answers_in_the_timeline(world: World, api: ChatApi) -> None:
    """sem-chat: "`POST {base}/chat` with `{"prompt", "conv_id"}` … submits a user's prompt. 2xx accepted"."""
    answer = await api.say("c-1", "hello")
    assert answer.status_code == 202
    assert answer.json() == {"conv_id": "c-1", "version": 1}
    session_id = await world.chats.prompted("hello")
    record = await world.session(session_id)
    assert (record.project_id, record.conversation_id) == (world.project_id, "c-1")
    await world.chats.say(session_id, ChatMessage(speech_id=f"{session_id}-1", text="Hi there."))
    shown = await api.timeline("c-1")
    assert (shown["convId"], shown["version"]) == ("c-1", 2)
    assert [entity["props"] for entity in shown["entities"]] == [
        {"role": "user", "content": "hello", "streaming": False},
        {"role": "assistant", "content": "Hi there.", "streaming": False},
    ]


@pytest.mark.states("sem-chat/unknown-id/timeline")
async def test_an_unknown_conversation_is_an_empty_timeline(api: ChatApi) -> None:
    """sem-chat: "Clients invent conversation ids: for an unknown one the timeline is 200 and empty"."""
    for conv_id in ("never-heard-of", "mit Leerzeichen", "日本語", "x" * 200, "../../etc", "a/b?c&d"):
        shown = await api.timeline(conv_id)
        assert (shown["convId"], shown["version"], shown["entities"]) == (conv_id, 0, [])
        assert shown["serverTimeMs"] > 1_700_000_000_000


@pytest.mark.states("sem-chat/errors/plain", "sem-chat/errors/code")
@pytest.mark.parametrize(
    ("body", "status", "code", "words"),
    [
        (b"", 422, "VALIDATION_FAILED", "JSON"),
        (b"{", 400, "BAD_REQUEST", "JSON"),
        (b"[]", 422, "VALIDATION_FAILED", "object"),
        (b'{"conv_id": "c"}', 422, "VALIDATION_FAILED", "prompt"),
        (b'{"prompt": "x"}', 422, "VALIDATION_FAILED", "conv_id"),
        (b'{"prompt": 5, "conv_id": "c"}', 422, "VALIDATION_FAILED", "prompt"),
        (b'{"prompt": "x", "conv_id": ["c"]}', 422, "VALIDATION_FAILED", "conv_id"),
        (b'{"prompt": "  \\n", "conv_id": "c"}', 422, "VALIDATION_FAILED", "empty"),
        (b'{"prompt": "x", "conv_id": ""}', 422, "VALIDATION_FAILED", "conv_id"),
        (b'{"prompt": "x", "conv_id": "a\\u0000b"}', 422, "VALIDATION_FAILED", "control characters"),
        (b'{"prompt": "x", "conv_id": "' + b"c" * 201 + b'"}', 422, "VALIDATION_FAILED", "200"),
        (b'{"prompt": "x", "conv_id": "c", "profile": 7}', 422, "VALIDATION_FAILED", "profile"),
        (
            b'{"prompt": "x", "conv_id": "c", "registry": "%b"}' % (b"r" * 201),
            422,
            "VALIDATION_FAILED",
            "200",
        ),
        (b'{"prompt": "x", "conv_id": "c", "more": ' + b"[" * 5000, 400, "BAD_REQUEST", "nested"),
        (
            b'{"prompt": "' + b"x" * (MAX_PROMPT_CHARS + 1) + b'", "conv_id": "c"}',
            413,
            "PAYLOAD_TOO_LARGE",
            str(MAX_PROMPT_CHARS),
        ),
        (b'{"prompt": "' + b"x" * 300_000 + b'"}', 413, "PAYLOAD_TOO_LARGE", "262144"),
    ],
)
async def test_a_bad_prompt_is_refused_in_words(
    api: ChatApi, body: bytes, status: int, code: str, words: str
) -> None:
    """sem-chat: "Under `{base}`, error bodies are plain text for people"."""
    answer = await api.post("/chat", content=body, headers={"content-type": "application/json"})
    assert words in refused(answer, status, code)
    assert (await api.timeline("c"))["entities"] == []


@pytest.mark.states("sem-chat/errors/plain", "sem-chat/errors/code")
async def test_other_requests_that_make_no_sense(world: World, served: Served, api: ChatApi) -> None:
    form = await api.post("/chat", data={"prompt": "x", "conv_id": "c"})
    refused(form, 415, "UNSUPPORTED_MEDIA_TYPE")
    refused(await api.http.get(api.base + "/api/timeline"), 422, "VALIDATION_FAILED")
    refused(await api.http.get(api.base + "/api/timeline?conv_id=" + "x" * 201), 422, "VALIDATION_FAILED")
    refused(await api.http.get(api.base + "/chat"), 405, "METHOD_NOT_ALLOWED")
    refused(await api.http.get(api.base + "/nothing"), 404, "NOT_FOUND")
    plain = await api.http.get(api.base + "/ws?conv_id=c")
    refused(plain, 404, "NOT_FOUND")


async def test_the_longest_prompt_is_taken_whatever_it_is_written_in(world: World, api: ChatApi) -> None:
    text = "é" * MAX_PROMPT_CHARS
    escaped = '{"conv_id": "c", "prompt": "' + "\\u00e9" * MAX_PROMPT_CHARS + '"}'
    answer = await api.post("/chat", content=escaped.encode(), headers={"content-type": "application/json"})
    assert answer.status_code == 202
    await world.chats.prompted(text)


@pytest.mark.states("sem-chat/post-chat/profile-registry")
async def test_profile_and_registry_are_told_to_the_session_that_they_start(
    world: World, api: ChatApi
) -> None:
    """sem-chat: "(also `profile`, `registry` when set)"."""
    await api.accepted("c", "hello", profile="coder", registry="main", anything_else=[1])
    session = await world.session(await world.chats.prompted("hello"))
    assert session.customer_context == {"profile": "coder", "registry": "main"}
    await api.accepted("c", "again", profile=None, registry="")


@pytest.mark.states(
    "sem-chat/keys/client", "sem-chat/keys/one-project", "sem-chat/keys/other", "sem-chat/gateway/same-keys"
)
async def test_who_may_talk(world: World, served: Served) -> None:
    """sem-chat: "`/c/{project id}` with an `Authorization` header serves all other keys"."""
    project, org_key = world.project_id, world.org_key
    other = await world.store.create_project(org_id=world.org_id, name="other", slug="other")
    stranger = await world.new_key(KeyKind.CLIENT, other.id)
    bound = await world.new_key(KeyKind.ADMIN, project)

    async def ask(base: str, key: str | None = None) -> httpx.Response:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        return await world.client(served, base=base, **headers).http.get(
            f"{served.url}/c/{base}/api/timeline?conv_id=c"
        )

    for base, key in (
        (world.client_key, None),
        (project, org_key),
        (project, bound),
        (project, world.client_key),
    ):
        assert (await ask(base, key)).status_code == 200
    assert (await ask(stranger)).status_code == 200, "its own project"
    refused(await ask("vthc_unknown"), 401, "UNAUTHORIZED")
    refused(await ask("vthc_" + "x" * 4000), 401, "UNAUTHORIZED")
    refused(await ask(org_key), 403, "FORBIDDEN")
    refused(await ask(project), 401, "UNAUTHORIZED")
    refused(await ask(project, "vth_unknown"), 401, "UNAUTHORIZED")
    refused(await ask(project, stranger), 404, "NOT_FOUND")
    refused(await ask("no-such-project", org_key), 404, "NOT_FOUND")
    refused(await ask("client-key", org_key), 404, "NOT_FOUND")
    refused(await ask(project, SERVICE_TOKEN), 403, "FORBIDDEN")
    refused(await world.client(served, base=stranger[:-1]).say("c", "x"), 401, "UNAUTHORIZED")


@pytest.mark.states("sem-chat/ids/scoped")
async def test_conversations_are_those_of_a_project(world: World, served: Served, api: ChatApi) -> None:
    """sem-chat: "Conversation ids are scoped to the project"."""
    other = await world.store.create_project(org_id=world.org_id, name="other", slug="other")
    neighbour = world.client(served, base=await world.new_key(KeyKind.CLIENT, other.id))
    await world.conversation(api, "same", "mine")
    assert (await neighbour.timeline("same"))["entities"] == []
    await world.conversation(neighbour, "same", "theirs")
    assert [entity["props"]["content"] for entity in (await api.timeline("same"))["entities"]] == ["mine"]


@pytest.mark.states("sem-chat/gateway/same-keys")
async def test_a_key_that_is_revoked_talks_no_more(world: World, served: Served) -> None:
    key = await world.new_key(KeyKind.CLIENT, world.project_id)
    api = world.client(served, base=key)
    await api.accepted("c", "hello")
    key_id = (await world.store.list_keys(world.org_id))[-1].id
    await world.store.revoke_key(world.org_id, key_id)
    refused(await api.say("c", "hello?"), 401, "UNAUTHORIZED")


@pytest.mark.states("sem-chat/cors", "sem-chat/no-origin", "sem-chat/keys/origins")
async def test_pages_of_other_origins(world: World, served: Served, api: ChatApi) -> None:
    """sem-chat: "the gateway answers CORS; a request without an `Origin` header is not refused for that"."""
    await world.store.put_project_settings(
        world.project_id, ProjectSettings(allowed_origins=["https://shop.example"])
    )
    assert (await api.say("c", "no page")).status_code == 202
    page = {"origin": "https://shop.example"}
    taken = await api.post("/chat", json={"prompt": "x", "conv_id": "c"}, headers=page)
    assert taken.status_code == 202
    assert taken.headers["access-control-allow-origin"] == "*"
    stranger = {"origin": "https://other.example"}
    no = await api.post("/chat", json={"prompt": "x", "conv_id": "c"}, headers=stranger)
    assert "allowed_origins" in refused(no, 403, "FORBIDDEN")
    assert no.headers["access-control-allow-origin"] == "*", "or the page would see a network error"
    assert "x-error-code" in no.headers["access-control-expose-headers"]
    preflight = await api.http.options(
        api.base + "/chat",
        headers={
            **page,
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type",
        },
    )
    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "content-type" in preflight.headers["access-control-allow-headers"].lower()


@pytest.mark.states("sem-chat/ids/issued", "sem-chat/ids/required", "sem-chat/ids/not-required")
async def test_a_project_may_require_issued_ids(world: World, served: Served, api: ChatApi) -> None:
    """sem-chat: "a project can require ids that the gateway issued (`POST {base}/conversations` → …)"."""
    assert (await api.say("invented", "x")).status_code == 202, "off by default"
    issued = await api.post("/conversations")
    assert issued.status_code == 201
    conv_id = issued.json()["conv_id"]
    assert set(issued.json()) == {"conv_id", "expires_at"}
    assert issued.json()["expires_at"].endswith("Z")
    assert conv_id != (await api.post("/conversations")).json()["conv_id"]
    await world.store.put_project_settings(
        world.project_id, ProjectSettings(require_issued_conversations=True)
    )
    refused(await api.say("invented", "x"), 404, "NOT_FOUND")
    refused(await api.http.get(api.base + "/api/timeline?conv_id=invented"), 404, "NOT_FOUND")
    await world.conversation(api, conv_id, "hello")
    assert len((await api.timeline(conv_id))["entities"]) == 1
    talker = await api.listen(conv_id)
    await talker.until(says("user", "hello"))


class LaterClock(SystemClock):
    """A time of day that stands still until it is made later."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = super().now()
        self.later = 0.0

    def now(self) -> float:
        return self._begun + self.later


async def test_an_issued_id_expires(world: World) -> None:
    await world.store.put_project_settings(
        world.project_id, ProjectSettings(require_issued_conversations=True)
    )
    clock = LaterClock()
    api = world.client(await world.gateway(clock=clock))
    record = await world.store.issue_conversation(world.project_id, seconds=3600)
    assert record.expires_at is not None
    clock.later = 3000.0
    assert (await api.timeline(record.id))["version"] == 0
    clock.later = 3601.0
    refused(await api.say(record.id, "x"), 404, "NOT_FOUND")


@pytest.mark.states("sem-chat/gateway/same-limits")
async def test_the_months_limit_refuses_what_would_start_a_session(world: World) -> None:
    api = world.client(await world.gateway(clock=LaterClock()))  # the month does not end meanwhile
    await world.store.put_project_settings(world.project_id, ProjectSettings(monthly_session_limit=1))
    await world.conversation(api, "first")
    no = await api.say("second", "hello")
    assert "1 sessions" in refused(no, 429, "MONTHLY_USAGE_EXCEEDED")
    assert int(no.headers["retry-after"]) > 0
    assert (await api.timeline("second"))["entities"] == [], "nothing was echoed"
    assert (await api.say("first", "its session goes on")).status_code == 202


async def test_prompts_that_nobody_takes_are_bounded(world: World, api: ChatApi) -> None:
    world.chats.takes = False
    for number in range(MAX_PENDING_PROMPTS):
        await api.accepted("c", f"prompt {number}")
    no = await api.say("c", "one too many")
    refused(no, 429, "RATE_LIMITED")
    assert no.headers["retry-after"]
    assert len((await api.timeline("c"))["entities"]) == MAX_PENDING_PROMPTS


class AwayStore(Store):
    """A database that can be away."""

    away = False

    def __getattribute__(self, name: str) -> Any:
        if object.__getattribute__(self, "__dict__").get("away") and not name.startswith(("_", "aclose")):
            raise StoreUnavailable("it is away")
        return object.__getattribute__(self, name)


async def test_a_database_that_is_away_accepts_nothing(world: World) -> None:
    store = await AwayStore.open(f"sqlite:///{world.folder}/voicethere.db")
    served = await world.gateway(SETTINGS, store=store)
    api = world.client(served)
    session_id = await world.conversation(api, "c")
    talker = await api.listen("c")
    await talker.until(says("user", "hello"))
    store.__dict__["away"] = True
    for answer in (await api.say("c", "x"), await api.http.get(api.base + "/api/timeline?conv_id=c")):
        refused(answer, 503, "UNAVAILABLE")
        assert answer.headers["retry-after"]
    number = world.chats.number(session_id)
    body = ChatMessage(speech_id=f"{session_id}-1", text="Still here.")
    await world.chats.send(session_id, number, body)
    store.__dict__["away"] = False
    await world.chats.send(session_id, number, body, again=True)
    await world.chats.stored(session_id, number)
    await talker.until(says("assistant", "Still here."))
    assert [entity["props"]["content"] for entity in (await api.timeline("c"))["entities"]] == [
        "hello",
        "Still here.",
    ]
    await store.aclose()


async def test_however_many_ask_for_timelines_a_few_are_made_at_once(world: World) -> None:
    """A timeline has up to 16 MiB, and takes more than that while it is made."""
    running, most, full = 0, 0, asyncio.Event()

    class Watched(Store):
        async def timeline(self, project_id: str, conv_id: str) -> Timeline:
            nonlocal running, most
            running += 1
            most = max(most, running)
            if running == SNAPSHOTS_AT_ONCE:
                full.set()
            await full.wait()
            try:
                return await super().timeline(project_id, conv_id)
            finally:
                running -= 1

    store = await Watched.open(f"sqlite:///{world.folder}/voicethere.db")
    api = world.client(await world.gateway(store=store))
    async with asyncio.timeout(60):
        shown = await asyncio.gather(*(api.timeline("c") for _ in range(5 * SNAPSHOTS_AT_ONCE)))
    assert len(shown) == 5 * SNAPSHOTS_AT_ONCE
    assert most == SNAPSHOTS_AT_ONCE
    await store.aclose()
