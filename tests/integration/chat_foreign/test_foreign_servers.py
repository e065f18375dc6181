"""Our chat client on gateways that somebody else wrote: with nothing that is optional, with everything."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.integration.chat_foreign.foreign_server import BareServer, ForeignServer, RichServer
from tests.integration.cli_chat.chat_process import Chat
from tests.integration.nothing_left_over import nothing_left_over
from voicethere.chat import ChatStore, ConversationManager, selectors
from voicethere.testing.chat_changes import until_holds

__all__ = ["nothing_left_over"]

CONV = "conv"
SECONDS = 20.0


class Client:
    """A manager on a foreign server."""

    def __init__(self, server: ForeignServer, **options: Any) -> None:
        self.store = ChatStore()
        self.manager = ConversationManager(self.store, server.base_url, **options)
        self.streaming: list[bool] = []
        self.store.subscribe(self._note)

    def _note(self, state: Any, action: object) -> None:
        streams = selectors.select_is_streaming(state, CONV)
        if streams is not (self.streaming[-1] if self.streaming else False):
            self.streaming.append(streams)

    @property
    def state(self) -> Any:
        return self.store.state

    @property
    def messages(self) -> list[tuple[str, str]]:
        return [
            (entity.props["role"], entity.props["content"])
            for entity in selectors.select_timeline_entities(self.state, CONV)
            if entity.kind == "message"
        ]

    async def until(self, condition: Callable[[], object]) -> None:
        await until_holds(self.store, condition, seconds=SECONDS)


@pytest.fixture
async def bare() -> AsyncIterator[BareServer]:
    async with BareServer() as server:
        assert isinstance(server, BareServer)
        yield server


@pytest.fixture
async def rich() -> AsyncIterator[RichServer]:
    async with RichServer() as server:
        assert isinstance(server, RichServer)
        yield server


async def test_a_server_that_leaves_out_whatever_it_may(bare: BareServer) -> None:
    """sem-chat: everything but `type` and `id` of an event, and `id` and `kind` of an entity, is optional."""
    client = Client(bare)
    async with client.manager, client.manager.conversation(CONV) as conversation:
        assert conversation.error_history == ()
        assert conversation.entities == ()
        await conversation.send("hello")
        await client.until(lambda: client.messages == HEARD_BARE and not conversation.is_streaming)
        assert client.streaming == [True, False]
        assert [entity.version for entity in conversation.entities] == [None, None]
        await conversation.reconnect()
        assert client.messages == HEARD_BARE
        assert conversation.error_history == ()
        assert bare.prompts == [{"prompt": "hello", "conv_id": CONV}]
        assert bare.queries == [{"conv_id": [CONV]}] * 2


HEARD_BARE = [("user", "hello"), ("assistant", "So you say 'hello'.")]


@pytest.mark.states("sem-chat/entity/numbers", "sem-chat/entity/fields", "sem-chat/metadata/bad")
async def test_a_server_that_adds_all_there_is(rich: RichServer) -> None:
    """sem-chat: "unknown fields ignored", "numbers or strings", "in `seq` order, each `seq` once"."""
    client = Client(rich, profile="poet", registry="main")
    async with client.manager, client.manager.conversation(CONV) as conversation:
        assert client.messages == [
            ("assistant", "Once upon a time."),
            ("assistant", "There was a telephone."),
        ]
        await conversation.send("hello")
        await client.until(lambda: client.messages[2:] == HEARD_BARE and not conversation.is_streaming)
        await client.until(lambda: conversation.turn_stats is not None)
        assert conversation.error_history == ()
        assert conversation.model_name == "foreign-1"
        stats = conversation.turn_stats
        assert stats is not None
        assert (stats.input_tokens, stats.output_tokens, stats.duration_ms) == (100, 50, 2000)
        assert stats.tokens_per_second == 25.0
        assert selectors.select_conversation_total_tokens(client.state, CONV) == 170
        assert client.streaming == [True, False, True, False], "the thinking, then the reply"
        by_id = {entity.id: entity for entity in selectors.select_timeline_entities(client.state, CONV)}
        assert list(by_id) == ["story", "starters", "log-of-old", "u1", "l1", "mode", "pause", "a1"]
        assert by_id["story"].props["mood"] == "calm"
        assert by_id["starters"].props["consumedAt"] is None
        assert by_id["l1"].props == {"level": "warn", "message": "slow", "fields": {"ms": 12}}
        assert by_id["pause"].props["deadlineMs"] == by_id["story"].created_at == 1_767_225_600_000
        assert by_id["a1"].version == 16
        assert rich.prompts == [
            {"prompt": "hello", "conv_id": CONV, "profile": "poet", "registry": "main"},
        ]
        assert rich.queries == [{"conv_id": [CONV], "profile": ["poet"], "registry": ["main"]}]


@pytest.mark.parametrize("temper", [BareServer, RichServer])
async def test_the_terminal_client_for_scripts(temper: type[ForeignServer]) -> None:
    async with temper() as server:
        arguments = [
            CONV,
            "--json-events",
            "--base-url",
            server.base_url,
            "--settle",
            "0.5",  # the server may be held up between the end of a stream and the message that it made
            "--send",
            "hello",
        ]
        async with Chat(*arguments) as chat:
            output, error, status = await chat.say("")
    assert (status, error) == (0, "")
    lines = [json.loads(line) for line in output.splitlines()]
    assert lines[-1] == {"event": "closed", "ok": True, "problems": []}
    assert [line for line in lines if line["event"] == "error"] == []
    last = {line["id"]: line for line in lines if line["event"] == "message"}
    said = [(line["role"], line["content"]) for line in last.values()]
    assert said[-2:] == HEARD_BARE
    assert not any(line["streaming"] for line in last.values())
