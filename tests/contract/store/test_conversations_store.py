"""What the store promises of chat conversations, on every database that it supports."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest

from tests.contract.store.rows import ended
from voicethere.adapters.store import SessionRecord, Store, StoreConflict, TooManyPrompts
from voicethere.core.conversation import (
    MAX_ENTITIES,
    MAX_PENDING_PROMPTS,
    MAX_PROMPT_CHARS,
    MAX_PROMPT_SESSIONS,
    MAX_PROPS_BYTES,
    MAX_TIMELINE_BYTES,
    Applied,
    Author,
    Composed,
    ConversationChange,
    EntityChange,
    SessionEnd,
    Skipped,
    StoredEntity,
    compose,
    compose_end,
    compose_failures,
    compose_prompt,
    number,
)
from voicethere.errors import SessionErrorCode, make_record
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.testing.clock import ManualClock
from voicethere.wire.control_channel import EndReason
from voicethere.wire.control_plane import Project
from voicethere.wire.relay import (
    ChatBody,
    ChatClosed,
    ChatFailure,
    ChatMessage,
    ChatPassed,
    ChatStreamEnd,
    ChatStreamStart,
    ChatStreamText,
)
from voicethere.wire.session_api import ProvisioningStatus

NOW = 1_750_000_000_000
DAY = 86_400

CRASH = SessionErrorEnvelope(code="AGENT_HANDLER_FAILED", message="Sorry.", session_id="s1")


async def say(
    store: Store, project: Project, *bodies: ChatBody, first: int = 1, session_id: str = "s1", at: int = NOW
) -> list[Applied | Skipped]:
    return await store.apply_outputs(
        [
            ConversationChange(
                project_id=project.id,
                conv_id="c1",
                session_id=session_id,
                number=first + index,
                composed=compose(body, at),
            )
            for index, body in enumerate(bodies)
        ]
    )


async def prompt(store: Store, project: Project, text: str = "Hello", conv_id: str = "c1") -> Composed:
    echo = compose_prompt(text, f"user-{text}", NOW)
    await store.accept_prompt(project.id, conv_id, text, echo)
    return echo


async def begin(
    store: Store, project: Project, session_id: str = "s1", conv_id: str = "c1"
) -> SessionRecord | None:
    return await store.begin_conversation_session(project.id, conv_id, session_id=session_id)


async def begin_all(store: Store, project: Project, names: Sequence[str]) -> None:
    await asyncio.gather(*(prompt(store, project, conv_id=name) for name in names))
    await asyncio.gather(*(begin(store, project, f"s-{name}", conv_id=name) for name in names))


@pytest.fixture
async def chat(store: Store, project: Project) -> None:
    """The conversation `c1` with one prompt, in its session `s1`."""
    await prompt(store, project)
    assert await begin(store, project) is not None


async def texts(store: Store, project: Project) -> list[tuple[str, object]]:
    found = await store.timeline(project.id, "c1")
    return [(entity.id, entity.props.get("content")) for entity in found.entities]


def change_of(*entities: EntityChange) -> Composed:
    return Composed(at_ms=NOW, entities=entities)


def entity(name: str, size: int = 1, **props: object) -> EntityChange:
    return EntityChange(
        id=name,
        kind="note",
        props={"text": "x" * size, **props},
        created_at_ms=NOW,
        updated_at_ms=NOW,
        author=Author.AGENT,
    )


async def put(store: Store, project: Project, composed: Composed, number: int) -> Applied | Skipped:
    change = ConversationChange(
        project_id=project.id, conv_id="c1", session_id="s1", number=number, composed=composed
    )
    return (await store.apply_outputs([change]))[0]


# ------------------------------------------------------------------ conversations and their ids


@pytest.mark.states("sem-chat/ids/scoped")
async def test_a_conversation_is_its_projects_own(store: Store, org: str, project: Project) -> None:
    other = await store.create_project(org_id=org, name="Other", slug="other")
    assert await store.find_conversation(project.id, "c1") is None
    made = await store.open_conversation(project.id, "c1")
    assert (made.version, made.seq, made.session_id, made.issued, made.expires_at) == (
        0,
        0,
        None,
        False,
        None,
    )
    assert await store.open_conversation(project.id, "c1") == made
    assert await store.find_conversation(project.id, "c1") == made
    assert await store.find_conversation(other.id, "c1") is None
    await prompt(store, other)
    assert (await store.timeline(project.id, "c1")).entities == []
    assert await store.pending_prompts(project.id, "c1") == []


@pytest.mark.states("sem-chat/ids/random")
async def test_an_issued_id_is_random_and_expires(store: Store, project: Project, clock: ManualClock) -> None:
    issued = [await store.issue_conversation(project.id, seconds=60) for _ in range(20)]
    ids = {record.id for record in issued}
    assert len(ids) == 20
    assert all(len(bytes.fromhex(name.removeprefix("conv-"))) == 16 for name in ids)
    clock.advance(60)
    assert {(record.issued, record.expires_at) for record in issued} == {(True, clock.wire_time())}


@pytest.mark.parametrize("conv_id", ["", "a\0b", "a\nb", "x" * 201])
async def test_an_id_that_a_conversation_cannot_have_is_refused(
    store: Store, project: Project, conv_id: str
) -> None:
    with pytest.raises(ValueError, match="a conversation's id must"):
        await store.open_conversation(project.id, conv_id)
    with pytest.raises(ValueError, match="a conversation's id must"):
        await prompt(store, project, conv_id=conv_id)
    with pytest.raises(LookupError, match="no project 'nope'"):
        await store.open_conversation("nope", "c1")
    with pytest.raises(ValueError, match="is issued for 1 to"):
        await store.issue_conversation(project.id, seconds=0)


@pytest.mark.states("sem-chat/unknown-id/timeline")
async def test_an_unknown_conversation_is_empty(store: Store, project: Project) -> None:
    found = await store.timeline(project.id, "unknown")
    assert (found.version, list(found.entities)) == (0, [])
    assert await store.latest_entities(project.id, "unknown", 10) == []
    assert await store.find_conversation(project.id, "unknown") is None


# ------------------------------------------------------------------ prompts


async def test_a_prompt_and_its_echo_are_kept_together(store: Store, project: Project) -> None:
    accepted = await store.accept_prompt(project.id, "c1", "Hello", compose_prompt("Hello", "u1", NOW))
    record = await store.find_conversation(project.id, "c1")
    assert record is not None
    assert (accepted.version, accepted.seq, record.version, record.seq) == (1, 1, 1, 1)
    assert await store.pending_prompts(project.id, "c1") == [accepted.prompt]
    assert (accepted.prompt.number, accepted.prompt.session_id, accepted.prompt.attempts) == (1, None, 0)
    assert await texts(store, project) == [("u1", "Hello")]
    second = await store.accept_prompt(project.id, "c1", "More", compose_prompt("More", "u2", NOW))
    assert (second.version, second.seq, second.prompt.number) == (2, 2, 2)


async def test_prompts_at_once_get_numbers_without_a_gap(store: Store, project: Project) -> None:
    done = await asyncio.gather(
        *(
            store.accept_prompt(project.id, "c1", f"p{n}", compose_prompt(f"p{n}", f"u{n}", NOW))
            for n in range(12)
        )
    )
    expected = list(range(1, 13))
    assert sorted(accepted.version for accepted in done) == expected
    assert sorted(accepted.seq for accepted in done) == expected
    assert [pending.number for pending in await store.pending_prompts(project.id, "c1")] == expected


async def test_a_prompt_that_is_none_or_one_too_many_changes_nothing(store: Store, project: Project) -> None:
    for text in (" \n", "x" * (MAX_PROMPT_CHARS + 1)):
        with pytest.raises(ValueError, match="a prompt must"):
            await prompt(store, project, text)
    assert await store.find_conversation(project.id, "c1") is None
    await prompt(store, project, "x" * MAX_PROMPT_CHARS)
    for count in range(1, MAX_PENDING_PROMPTS):
        await prompt(store, project, str(count))
    with pytest.raises(TooManyPrompts, match="wait already"):
        await prompt(store, project, "one too many")
    record = await store.find_conversation(project.id, "c1")
    assert record is not None
    assert record.seq == MAX_PENDING_PROMPTS


async def test_a_session_begins_with_what_waits_and_gets_what_follows(store: Store, project: Project) -> None:
    await prompt(store, project, "a")
    await prompt(store, project, "b")
    begun = await begin(store, project)
    assert begun is not None
    assert (begun.conversation_id, begun.status) == ("c1", ProvisioningStatus.QUEUED)
    assert await store.get_session("s1") == begun
    await prompt(store, project, "c")
    given = [(p.text, p.session_id, p.session_number) for p in await store.pending_prompts(project.id, "c1")]
    assert given == [("a", "s1", 1), ("b", "s1", 2), ("c", "s1", 3)]
    assert await store.prompts_taken("s1", 2) == 2
    assert await store.prompts_taken("s1", 2) == 0
    assert await store.prompts_taken("another", 9) == 0
    assert [p.text for p in await store.pending_prompts(project.id, "c1")] == ["c"]


async def test_one_of_two_gateways_begins_the_session(store: Store, project: Project) -> None:
    await prompt(store, project)
    begun = await asyncio.gather(*(begin(store, project, f"s{n}") for n in range(6)))
    (winner,) = [record for record in begun if record is not None]
    assert [record.id for record in await store.unfinished_sessions()] == [winner.id]
    record = await store.find_conversation(project.id, "c1")
    assert record is not None
    assert record.session_id == winner.id
    assert await begin(store, project, "late") is None
    assert await begin(store, project, conv_id="unknown") is None


async def test_a_taken_session_id_begins_nothing(store: Store, project: Project, session: str) -> None:
    await prompt(store, project)
    with pytest.raises(StoreConflict, match="is taken"):
        await begin(store, project, session)
    record = await store.find_conversation(project.id, "c1")
    assert record is not None
    assert record.session_id is None


@pytest.mark.states("sem-chat/gateway/next-session")
@pytest.mark.usefixtures("chat")
async def test_what_a_session_in_order_did_not_take_is_for_the_next(store: Store, project: Project) -> None:
    await prompt(store, project, "again")
    await store.prompts_taken("s1", 1)
    await say(store, project, ChatClosed(end_reason=EndReason.AGENT_DISCONNECTED))
    (waiting,) = await store.pending_prompts(project.id, "c1")
    assert (waiting.text, waiting.session_id, waiting.attempts) == ("again", None, 1)
    await begin(store, project, "s2")
    (given,) = await store.pending_prompts(project.id, "c1")
    assert (given.session_id, given.session_number, given.attempts) == ("s2", 1, 2)
    (applied,) = await say(store, project, ChatMessage(speech_id="s2-1", text="Hi"), session_id="s2")
    assert isinstance(applied, Applied)


@pytest.mark.usefixtures("chat")
async def test_what_the_ending_session_says_it_took_is_not_for_the_next(
    store: Store, project: Project
) -> None:
    await prompt(store, project, "not taken")
    closed = ConversationChange(
        project_id=project.id,
        conv_id="c1",
        session_id="s1",
        number=1,
        composed=compose(ChatClosed(end_reason=EndReason.AGENT_DISCONNECTED), NOW),
        prompts_taken=1,
    )
    await store.apply_outputs([closed])
    (waiting,) = await store.pending_prompts(project.id, "c1")
    # It was at work for the user: this one was not given to it in vain.
    assert (waiting.text, waiting.attempts) == ("not taken", 0)


@pytest.mark.usefixtures("chat")
async def test_a_prompt_that_no_session_takes_is_given_up_once_and_told_with_its_row(
    store: Store, project: Project, clock: ManualClock
) -> None:
    record = make_record(
        "why",
        code=SessionErrorCode.RUNNER_INTERNAL,
        error_id="e1",
        session_id="s3",
        project_id=project.id,
        build_id=None,
        occurred_at=clock.now(),
    )
    told = compose_failures([("e1", record.envelope(with_stack=False))], NOW, session_end=None)
    for count in range(1, MAX_PROMPT_SESSIONS + 1):
        assert await store.give_up_prompts(project.id, "c1", record, told) is None
        if count > 1:
            await begin(store, project, f"s{count}")
        await say(store, project, ChatClosed(end_reason=EndReason.AGENT_DISCONNECTED), session_id=f"s{count}")
    await prompt(store, project, "newer")
    answers = await asyncio.gather(*(store.give_up_prompts(project.id, "c1", record, told) for _ in range(3)))
    (applied,) = [answer for answer in answers if answer is not None]
    assert [found.text for found in await store.pending_prompts(project.id, "c1")] == ["newer"]
    frames = [msgspec.json.decode(frame)["event"] for frame in number("c1", told, applied)]
    assert [frame["type"] for frame in frames] == ["session.error", "timeline.upsert"]
    assert await texts(store, project) == [("user-Hello", "Hello"), ("user-newer", "newer"), ("e1", None)]
    rows = (await store.session_errors(project.id, "s3", limit=9, cursor=None)).errors
    assert [row.id for row in rows] == ["e1"]
    assert await store.dead_letters() == []


@pytest.mark.usefixtures("chat")
async def test_what_a_failed_session_did_not_take_is_dropped(store: Store, project: Project) -> None:
    await say(store, project, ChatFailure(error_id="e1", envelope=CRASH))
    assert await store.pending_prompts(project.id, "c1") == []
    record = await store.find_conversation(project.id, "c1")
    assert record is not None
    assert record.session_id is None
    await prompt(store, project, "retry")
    assert await begin(store, project, "s2") is not None


async def test_conversations_whose_prompts_nobody_cares_for_are_found(
    store: Store, project: Project, clock: ManualClock
) -> None:
    await prompt(store, project, conv_id="old")
    clock.advance(10)
    before = clock.wire_time()
    await prompt(store, project, conv_id="new")
    waiting = await store.conversations_waiting(before=before, limit=10)
    assert [record.id for record in waiting] == ["old"]
    clock.advance(1)
    both = await store.conversations_waiting(before=clock.wire_time(), limit=10)
    assert [record.id for record in both] == ["old", "new"]
    assert len(await store.conversations_waiting(before=clock.wire_time(), limit=1)) == 1


# ------------------------------------------------------------------ outputs


@pytest.mark.states("sem-chat/version/one-counter", "sem-chat/version/upsert", "sem-chat/gateway/seq")
@pytest.mark.usefixtures("chat")
async def test_a_streamed_reply_grows_versions_and_seq_without_a_gap(store: Store, project: Project) -> None:
    applied = await say(
        store,
        project,
        ChatStreamStart(speech_id="s1-1"),
        ChatStreamText(speech_id="s1-1", delta="He", cumulative="He"),
        ChatStreamText(speech_id="s1-1", delta="llo", cumulative="Hello"),
        ChatStreamEnd(speech_id="s1-1", text="Hello", complete=True),
    )
    numbers = [(a.first_version, a.first_seq, a.version) for a in applied if isinstance(a, Applied)]
    assert numbers == [(2, 2, 1), (2, 3, 2), (3, 5, 3), (4, 7, 4)]
    found = await store.timeline(project.id, "c1")
    assert (found.version, [e.id for e in found.entities]) == (4, ["user-Hello", "s1-1"])
    reply = found.entities[1]
    assert reply.props == {"role": "assistant", "content": "Hello", "streaming": False}
    assert (reply.version, reply.author) == (4, Author.AGENT)


@pytest.mark.usefixtures("chat")
async def test_an_output_is_applied_once_whoever_applies_it(store: Store, project: Project) -> None:
    body = ChatMessage(speech_id="s1-1", text="Hi")
    results = await asyncio.gather(*(say(store, project, body) for _ in range(6)))
    kinds = sorted(type(result).__name__ for (result,) in results)
    assert kinds == ["Applied"] + ["Skipped"] * 5
    assert {r.applied_up_to for (r,) in results if isinstance(r, Skipped)} == {1}
    record = await store.find_conversation(project.id, "c1")
    assert record is not None
    assert (record.version, record.seq, record.outputs) == (2, 2, 1)


@pytest.mark.usefixtures("chat")
async def test_outputs_with_one_missing_wait_for_it(store: Store, project: Project) -> None:
    one, two, three = [ChatMessage(speech_id=f"s1-{n}", text=str(n)) for n in (1, 2, 3)]
    assert await say(store, project, two, first=2) == [Skipped(applied_up_to=0)]
    assert isinstance((await say(store, project, one, first=1))[0], Applied)
    assert await say(store, project, three, first=3) == [Skipped(applied_up_to=1)]
    done = await say(store, project, one, two, three, first=1)
    assert [type(result) for result in done] == [Skipped, Applied, Applied]
    assert await texts(store, project) == [
        ("user-Hello", "Hello"),
        ("s1-1", "1"),
        ("s1-2", "2"),
        ("s1-3", "3"),
    ]
    assert await say(store, project, one, session_id="another") == [Skipped(applied_up_to=None)]


@pytest.mark.usefixtures("chat")
async def test_many_conversations_change_in_one_transaction(store: Store, project: Project) -> None:
    names = [f"many-{n}" for n in range(210)]
    await begin_all(store, project, names)
    changes = [
        ConversationChange(
            project_id=project.id,
            conv_id=name,
            session_id=f"s-{name}",
            number=1,
            composed=compose(ChatMessage(speech_id=f"s-{name}-1", text=name), NOW),
        )
        for name in reversed(names)
    ]
    gone = msgspec.structs.replace(changes[0], conv_id="unknown")
    *applied, skipped = await store.apply_outputs([*changes, gone])
    assert skipped == Skipped(applied_up_to=None)
    assert {(a.first_version, a.first_seq) for a in applied if isinstance(a, Applied)} == {(2, 2)}
    for name in (names[0], names[-1]):
        assert (await store.timeline(project.id, name)).entities[-1].props["content"] == name


@pytest.mark.usefixtures("chat")
async def test_groups_that_cross_do_not_fail_one_another(store: Store, project: Project) -> None:
    names = [f"x{n}" for n in range(8)]
    await begin_all(store, project, names)

    async def apply(order: Sequence[str], output: int) -> int:
        changes = [
            ConversationChange(
                project_id=project.id,
                conv_id=name,
                session_id=f"s-{name}",
                number=output,
                composed=compose(ChatMessage(speech_id=f"{name}-{output}", text="x"), NOW),
            )
            for name in order
        ]
        return sum(isinstance(result, Applied) for result in await store.apply_outputs(changes))

    for output in (1, 2, 3):
        done = await asyncio.gather(*(apply(order, output) for order in (names, names[::-1]) * 3))
        assert sum(done) == len(names)
    for name in names:
        record = await store.find_conversation(project.id, name)
        assert record is not None
        assert (record.version, record.seq, record.outputs) == (4, 4, 3)


@pytest.mark.states("sem-chat/version/newer", "sem-chat/version/order", "sem-chat/entity/null")
@pytest.mark.usefixtures("chat")
async def test_entities_merge_key_by_key_and_keep_their_place(store: Store, project: Project) -> None:
    first = entity("n1", consumedAt=5)
    await put(store, project, change_of(first, entity("n2")), 1)
    later = msgspec.structs.replace(
        first,
        kind="memo",
        props={"consumedAt": None, "more": True},
        meta={"a": "\0\ud7ff"},
        created_at_ms=NOW + 9,
        updated_at_ms=NOW + 9,
    )
    applied = await put(store, project, change_of(later), 2)
    assert isinstance(applied, Applied)
    assert [kept and kept.created_at_ms for kept in applied.entities] == [NOW]
    found = (await store.timeline(project.id, "c1")).entities
    assert [e.id for e in found] == ["user-Hello", "n1", "n2"]
    assert found[1] == StoredEntity(
        id="n1",
        kind="memo",
        author=Author.AGENT,
        position=2,
        created_at_ms=NOW,
        updated_at_ms=NOW + 9,
        version=4,
        props={"text": "x", "consumedAt": None, "more": True},
        meta={"a": "\0\ud7ff"},
    )


@pytest.mark.states(
    "sem-chat/text/end-before-error", "sem-chat/gateway/error-frame", "sem-chat/gateway/error-entity"
)
@pytest.mark.usefixtures("chat")
async def test_an_error_ends_what_streams_and_is_told_once(store: Store, project: Project) -> None:
    thinking = ChatPassed(payload='{"sem":true,"event":{"type":"llm.thinking.start","id":"t1"}}')
    failure = ChatFailure(error_id="e1", envelope=CRASH)
    await say(
        store, project, ChatStreamText(speech_id="s1-1", delta="Hel", cumulative="Hel"), thinking, at=NOW
    )
    (applied,) = await say(store, project, failure, first=3, at=NOW + 500)
    assert isinstance(applied, Applied)
    frames = [msgspec.json.decode(f)["event"] for f in number("c1", compose(failure, NOW + 500), applied)]
    assert [(f["type"], f["id"]) for f in frames] == [
        ("llm.final", "s1-1"),
        ("timeline.upsert", "s1-1"),
        ("llm.thinking.final", "t1"),
        ("session.error", "e1"),
        ("timeline.upsert", "e1"),
    ]
    assert [f["seq"] for f in frames] == [5, 6, 7, 8, 9]
    assert frames[0]["metadata"] == {"durationMs": 500}
    found = (await store.timeline(project.id, "c1")).entities
    assert found[1].props == {"role": "assistant", "content": "Hel", "streaming": False}
    assert (found[2].id, found[2].kind, found[2].props["code"]) == ("e1", "error", "AGENT_HANDLER_FAILED")


@pytest.mark.usefixtures("chat")
async def test_an_error_that_the_timeline_has_is_not_told_again(store: Store, project: Project) -> None:
    mild = msgspec.structs.replace(CRASH, recoverable=True)
    await say(store, project, ChatFailure(error_id="e1", envelope=mild))
    again = compose_failures([("e1", mild), ("e2", CRASH)], NOW, session_end=SessionEnd.FAILED)
    change = ConversationChange(
        project_id=project.id, conv_id="c1", session_id="s1", number=None, composed=again
    )
    applied, skipped = await store.apply_outputs([change, change])
    assert isinstance(applied, Applied)
    frames = [msgspec.json.decode(f)["event"] for f in number("c1", again, applied)]
    assert [(f["type"], f["id"], f["seq"]) for f in frames] == [
        ("session.error", "e2", 4),
        ("timeline.upsert", "e2", 5),
    ]
    assert skipped == Skipped(applied_up_to=None)
    record = await store.find_conversation(project.id, "c1")
    assert record is not None
    assert (record.version, record.seq, record.session_id) == (3, 5, None)


@pytest.mark.usefixtures("chat")
async def test_what_fails_behind_the_end_is_still_told(store: Store, project: Project) -> None:
    await say(store, project, ChatClosed(end_reason=EndReason.IDLE_TIMEOUT))
    await prompt(store, project, "next")
    await begin(store, project, "s2")
    await say(store, project, ChatStreamStart(speech_id="s2-1"), session_id="s2")
    (late,) = await say(store, project, ChatFailure(error_id="e1", envelope=CRASH), first=2)
    assert isinstance(late, Applied)
    assert late.ended == ()
    record = await store.find_conversation(project.id, "c1")
    assert record is not None
    assert (record.session_id, record.outputs) == ("s2", 1)
    assert [p.text for p in await store.pending_prompts(project.id, "c1")] == ["Hello", "next"]


@pytest.mark.usefixtures("chat")
async def test_an_agent_cannot_change_what_is_not_its_own(store: Store, project: Project) -> None:
    payload = (
        '{"sem":true,"event":{"type":"timeline.upsert","id":"x","data":'
        '{"entity":{"id":"user-Hello","kind":"message","props":{"content":"forged"}}}}}'
    )
    (applied,) = await say(store, project, ChatPassed(payload=payload))
    assert isinstance(applied, Applied)
    assert applied.entities == (None,)
    assert number("c1", compose(ChatPassed(payload=payload), NOW), applied) == []
    assert await texts(store, project) == [("user-Hello", "Hello")]
    (next_one,) = await say(store, project, ChatMessage(speech_id="m", text="Hi"), first=2)
    assert isinstance(next_one, Applied)
    assert (next_one.first_version, next_one.first_seq) == (2, 2)


@pytest.mark.states("sem-chat/connect/latest-again")
@pytest.mark.usefixtures("chat")
async def test_the_latest_entities_are_those_that_changed_last(store: Store, project: Project) -> None:
    await put(store, project, change_of(*(entity(f"n{n}") for n in range(5))), 1)
    await put(store, project, change_of(entity("n0", 2)), 2)
    latest = await store.latest_entities(project.id, "c1", 3)
    assert [(e.id, e.version) for e in latest] == [("n0", 7), ("n3", 5), ("n4", 6)]
    assert [e.id for e in await store.latest_entities(project.id, "c1", 9, since=6)] == ["n0"]


# ------------------------------------------------------------------ bounds


@pytest.mark.usefixtures("chat")
async def test_past_so_many_entities_the_oldest_go(store: Store, project: Project) -> None:
    everything = change_of(*(entity(f"n{n}") for n in range(MAX_ENTITIES + 3)))
    await put(store, project, everything, 1)
    found = await store.timeline(project.id, "c1")
    assert len(found.entities) == MAX_ENTITIES
    assert (found.entities[0].id, found.entities[-1].id) == ("n3", f"n{MAX_ENTITIES + 2}")
    await put(store, project, change_of(entity("n0"), entity("n9", 2)), 2)
    found = await store.timeline(project.id, "c1")
    assert (len(found.entities), found.entities[-1].id) == (MAX_ENTITIES, "n0")


@pytest.mark.usefixtures("chat")
async def test_past_so_many_bytes_the_oldest_go_but_never_the_newest(store: Store, project: Project) -> None:
    size = MAX_PROPS_BYTES - 100
    for step in range(1, 10):
        await put(store, project, change_of(*(entity(f"n{step}-{n}", size) for n in range(10))), step)
        found = (await store.timeline(project.id, "c1")).entities
        assert found[-1].id == f"n{step}-9"
        assert sum(len(e.props.get("text", "")) for e in found) <= MAX_TIMELINE_BYTES
    assert len(found) >= MAX_TIMELINE_BYTES * 7 // 8 // MAX_PROPS_BYTES


@pytest.mark.usefixtures("chat")
async def test_an_entity_that_grows_too_large_loses_what_was_there_before(
    store: Store, project: Project
) -> None:
    half = MAX_PROPS_BYTES // 2
    await put(store, project, change_of(entity("n", half)), 1)
    more = msgspec.structs.replace(entity("n"), props={"more": "y" * half})
    await put(store, project, change_of(more), 2)
    (found,) = await store.latest_entities(project.id, "c1", 1)
    assert set(found.props) == {"more"}


# ------------------------------------------------------------------ sessions that end without a word


async def test_sessions_that_are_over_without_a_word_are_found(store: Store, project: Project) -> None:
    for name in ("lives", "ended", "failed"):
        await prompt(store, project, conv_id=name)
        await begin(store, project, f"s-{name}", conv_id=name)
    await store.commit_batch([ended("s-ended", project.id)], [])
    await store.update_session("s-failed", status=ProvisioningStatus.FAILED)
    found = await store.conversation_sessions_to_reconcile(10)
    told = [(held.conversation_id, held.session_id, held.session is None) for held in found]
    assert told == [("ended", "s-ended", False), ("failed", "s-failed", False)]
    assert [h.conversation_id for h in await store.conversation_sessions_to_reconcile(1)] == ["ended"]
    over = ConversationChange(
        project_id=project.id,
        conv_id="ended",
        session_id="s-ended",
        number=None,
        composed=compose_end(NOW, SessionEnd.CLEAN),
    )
    first, second = await asyncio.gather(store.apply_outputs([over]), store.apply_outputs([over]))
    assert sorted(type(result).__name__ for (result,) in (first, second)) == ["Applied", "Skipped"]
    assert [h.conversation_id for h in await store.conversation_sessions_to_reconcile(9)] == ["failed"]


async def test_a_session_that_is_deleted_is_over(store: Store, project: Project, clock: ManualClock) -> None:
    await prompt(store, project)
    await begin(store, project)
    over = msgspec.structs.replace(ended("s1", project.id), ended_at=clock.wire_time())
    await store.commit_batch([over], [])
    clock.advance(3 * DAY)
    await store.apply_retention(default_days=1, default_errors=0)
    (held,) = await store.conversation_sessions_to_reconcile(10)
    assert (held.conversation_id, held.session_id, held.session) == ("c1", "s1", None)


@pytest.mark.states("sem-chat/gateway/same-storage")
@pytest.mark.usefixtures("chat")
async def test_a_session_tells_whose_conversation_it_is(store: Store, project: Project, session: str) -> None:
    found = await store.conversation_of_session("s1")
    assert found is not None
    assert (found.project_id, found.id, found.session_id) == (project.id, "c1", "s1")
    assert await store.conversation_of_session(session) is None
    rows = {row.id: row for row in await store.list_sessions(project.id, start=None, end=None, limit=9)}
    assert rows["s1"].conversation_id == "c1"
    assert rows[session].conversation_id is msgspec.UNSET
    assert await store.get_session_row(project.id, "s1") == rows["s1"]


# ------------------------------------------------------------------ what goes


async def test_conversations_that_nobody_touches_go(
    store: Store, project: Project, clock: ManualClock
) -> None:
    for name in ("old", "in session", "touched"):
        await prompt(store, project, conv_id=name)
    await prompt(store, project, "more", conv_id="old")
    await begin(store, project, conv_id="in session")
    unused = await store.issue_conversation(project.id, seconds=2 * DAY)
    clock.advance(2 * DAY)
    await prompt(store, project, "again", conv_id="touched")
    clock.advance(1)
    assert (await store.apply_retention(default_days=0, default_errors=0)).deleted_conversations == 1
    assert await store.find_conversation(project.id, unused.id) is None
    rounds = [await store.apply_retention(default_days=1, default_errors=0, batch=1) for _ in range(3)]
    assert [done.deleted_conversations for done in rounds] == [0, 1, 0]
    assert [done.more for done in rounds] == [True, True, False]
    assert await store.find_conversation(project.id, "old") is None
    assert (await store.timeline(project.id, "old")).entities == []
    assert await store.pending_prompts(project.id, "old") == []
    for name in ("in session", "touched"):
        assert (await store.timeline(project.id, name)).entities != []


@pytest.mark.usefixtures("chat")
async def test_a_deleted_project_takes_its_conversations_along(
    store: Store, org: str, project: Project
) -> None:
    await put(store, project, change_of(*(entity(f"n{n}") for n in range(30))), 1)
    results = await asyncio.gather(
        store.delete_project(project.id, org_id=org),
        *(prompt(store, project, f"p{n}") for n in range(5)),
        return_exceptions=True,
    )
    assert results[0] is True
    assert all(isinstance(result, Composed | LookupError) for result in results[1:])
    assert await store.find_conversation(project.id, "c1") is None
    assert (await store.timeline(project.id, "c1")).entities == []
    with pytest.raises(LookupError, match="there is no project"):
        await prompt(store, project, "late")
    assert await say(store, project, ChatMessage(speech_id="m", text="x")) == [Skipped(applied_up_to=None)]


async def test_what_changed_lately_is_found_by_its_time(
    store: Store, project: Project, clock: ManualClock
) -> None:
    await prompt(store, project, conv_id="old")
    clock.advance(10)
    since = clock.wire_time()
    assert await store.conversations_changed(project.id, since=since) == {}
    for conv_id in ("c1", "c2"):
        await prompt(store, project, conv_id=conv_id)
        clock.advance(1)
    await prompt(store, project, "again", conv_id="c2")
    assert await store.conversations_changed(project.id, since=since) == {"c1": 1, "c2": 2}
    assert await store.conversations_changed(project.id, since=since, limit=1) == {"c2": 2}
    assert await store.conversations_changed("another", since=since) == {}
