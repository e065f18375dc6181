"""The chats' part of the account: what was asked, what is in the timelines, what clients were told. Pure.

Every accepted prompt must be in its timeline, once, and be answered, once; or an error behind it says why
not, of which the client was told. Every client's timeline must be the gateway's, and every frame must have
come in order.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tools.torture.chat_outcomes import Entity, Fate, Said, answers_to_nobody, outcomes
from tools.torture.ledger import Ledger
from tools.torture.rows import LoggedError, Row

_UNAVAILABLE = 503


class ConversationRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of `conversations`, with its entities. `streams` is JSON; `waiting` counts its prompts that no
    session has taken."""

    id: str
    project_id: str
    session_open: bool
    streams: str
    waiting: int
    entities: Sequence[Entity]


class ChatFindings(msgspec.Struct, frozen=True, kw_only=True):
    """What was read of chats after a run. Events are those of `chatters`' journal."""

    events: Sequence[Mapping[str, Any]]
    conversations: Sequence[ConversationRow]


class _Client:
    """What the journal says of one conversation."""

    def __init__(self, conv_id: str) -> None:
        self.conv_id = conv_id
        self.project_id = ""
        self.prompted: dict[int, str] = {}
        self.accepted: set[int] = set()
        self.refused: dict[int, int] = {}
        self.doubted: set[int] = set()
        self.told: set[str] = set()
        self.wrong: list[str] = []
        self.frames = 0
        self.told_again = 0
        self.settled: Mapping[str, Any] | None = None

    @property
    def shown(self) -> set[str]:
        """The ids of the errors in the client's own timeline."""
        timeline = [] if self.settled is None else self.settled["client"]
        return {entity[0] for entity in timeline if entity[1] == "error"}

    def hear(self, event: Mapping[str, Any]) -> None:
        number = event.get("number", 0)
        match event["event"]:
            case "begun":
                self.project_id = event["project"]
            case "prompted":
                self.prompted[number] = event["order"]
            case "accepted":
                self.accepted.add(number)
            case "refused":
                self.refused[number] = event["status"]
            case "doubted":
                self.doubted.add(number)
            case "told":
                self.told.add(event["id"])
            case "wrong":
                self.wrong.append(event["what"])
            case "settled":
                self.settled = event
            case "watched":
                self.frames, self.told_again = event["frames"], event["told_again"]


class _Conversation:
    """A client and what the database has of its conversation."""

    def __init__(self, client: _Client, row: ConversationRow | None) -> None:
        self.client = client
        self.row = row
        self.entities = [] if row is None else sorted(row.entities, key=lambda entity: entity.position)
        self.said: Mapping[int, Said] = {said.asked.number: said for said in outcomes(self.entities)}

    def of(self, numbers: Iterable[int]) -> list[str]:
        """Prompts as they are shown."""
        return [f"{number} of {self.client.conv_id}" for number in sorted(numbers)]

    def fated(self, *fates: Fate) -> list[str]:
        """Prompts that had one of these fates."""
        return self.of(number for number, said in self.said.items() if said.fate in fates)

    def twice(self) -> list[str]:
        """Prompts that are in the timeline more than once."""
        return self.of(number for number, said in self.said.items() if said.times > 1)

    @property
    def errors(self) -> list[Entity]:
        return [entity for entity in self.entities if entity.kind == "error"]


def settle_chats(
    found: ChatFindings,
    ledger: Ledger,
    rows: Sequence[Row],
    logged: Sequence[LoggedError],
    killed_instances: frozenset[str],
) -> None:
    """Write the chats' part into the ledger. `rows`, `logged` and `killed_instances` are the whole run's."""
    known = {(row.project_id, row.id): row for row in found.conversations}
    chats = [
        _Conversation(client, known.get((client.project_id, client.conv_id)))
        for client in _clients(found.events)
    ]
    _prompts(chats, ledger)
    _answers(chats, ledger)
    _errors(chats, ledger, rows, logged, killed_instances)
    _timelines(chats, ledger)
    _rest(found, ledger)


def _clients(events: Iterable[Mapping[str, Any]]) -> list[_Client]:
    clients: dict[str, _Client] = {}
    for event in events:
        if "conversation" in event:
            conv_id = event["conversation"]
            clients.setdefault(conv_id, _Client(conv_id)).hear(event)
    return list(clients.values())


def _prompts(chats: Sequence[_Conversation], ledger: Ledger) -> None:
    def each(numbers: Any) -> list[str]:
        return [words for chat in chats for words in chat.of(numbers(chat))]

    ledger.count("conversations", len(chats))
    ledger.count("prompts sent", sum(len(chat.client.prompted) for chat in chats))
    ledger.count("prompts accepted", sum(len(chat.client.accepted) for chat in chats))
    ledger.count("prompts refused", sum(len(chat.client.refused) for chat in chats))
    ledger.count(
        "prompts in doubt",
        len(each(lambda c: c.client.prompted.keys() - c.client.accepted - c.client.refused.keys())),
    )
    ledger.count("prompts stored", sum(len(chat.said) for chat in chats))
    ledger.must_be_none("accepted prompts missing", each(lambda c: c.client.accepted - c.said.keys()))
    ledger.must_be_none("prompts stored twice", [words for chat in chats for words in chat.twice()])
    ledger.must_be_none("prompts that nobody sent", each(lambda c: c.said.keys() - c.client.prompted.keys()))
    # A database that went away in the middle of a commit leaves open whether it was one.
    unknown = {
        chat.client.conv_id: {n for n, status in chat.client.refused.items() if status == _UNAVAILABLE}
        for chat in chats
    }
    ledger.remark(
        "prompts refused as the database went away, and stored",
        each(lambda c: unknown[c.client.conv_id] & c.said.keys()),
    )
    ledger.must_be_none(
        "prompts refused and stored",
        each(lambda c: (c.client.refused.keys() - unknown[c.client.conv_id]) & c.said.keys()),
    )


def _answers(chats: Sequence[_Conversation], ledger: Ledger) -> None:
    fates = Counter(said.fate for chat in chats for said in chat.said.values())
    for fate in (Fate.ANSWERED, Fate.CUT, Fate.ERROR):
        ledger.count(f"prompts {fate}", fates[fate])
    ledger.remark(f"prompts {Fate.HUNG_UP}", [words for chat in chats for words in chat.fated(Fate.HUNG_UP)])
    for fate in (Fate.NOTHING, Fate.TWICE):
        ledger.must_be_none(f"prompts {fate}", [words for chat in chats for words in chat.fated(fate)])
    ledger.must_be_none(
        "answers to nobody",
        (f"{one} of {chat.client.conv_id}" for chat in chats for one in answers_to_nobody(chat.entities)),
    )


def _errors(
    chats: Sequence[_Conversation],
    ledger: Ledger,
    rows: Sequence[Row],
    logged: Sequence[LoggedError],
    killed_instances: frozenset[str],
) -> None:
    known = {row.id for row in rows}
    died = {error.id for error in logged if error.instance in killed_instances}
    entities = [(chat, entity) for chat in chats for entity in chat.errors]
    rowless = [(chat, entity) for chat, entity in entities if entity.id not in known]

    def shown(pairs: Iterable[tuple[_Conversation, Entity]]) -> list[str]:
        return [f"{e.id} ({e.props.get('code')}) of {chat.client.conv_id}" for chat, e in pairs]

    ledger.count("errors in timelines", len(entities))
    ledger.remark(
        "errors whose runner was killed before a put returned",
        shown(pair for pair in rowless if pair[1].id in died),
    )
    ledger.must_be_none("errors without a row", shown(pair for pair in rowless if pair[1].id not in died))
    excuses = {said.excuse for chat in chats for said in chat.said.values()}
    counted = [(chat, entity) for chat, entity in entities if entity.id in excuses]
    ledger.count("errors that explain a prompt", len(counted))
    ledger.count("told by a record", sum(entity.id in chat.client.told for chat, entity in counted))
    alone = [
        (chat, entity)
        for chat, entity in counted
        if entity.id not in chat.client.told and entity.id in chat.client.shown
    ]
    # Their socket was lost, or they had none, when it was said.
    ledger.count("told by the timeline alone", len(alone))
    ledger.must_be_none(
        "errors untold",
        shown(
            (chat, entity)
            for chat, entity in counted
            if entity.id not in chat.client.told and entity.id not in chat.client.shown
        ),
    )


def _timelines(chats: Sequence[_Conversation], ledger: Ledger) -> None:
    ledger.count("frames looked at", sum(chat.client.frames for chat in chats))
    ledger.count("entities told again", sum(chat.client.told_again for chat in chats))
    ledger.must_be_none(
        "frames out of order",
        (f"{wrong} in {chat.client.conv_id}" for chat in chats for wrong in chat.client.wrong),
    )
    ledger.must_be_none(
        "timelines that differ",
        (f"{chat.client.conv_id}: {words}" for chat in chats if (words := _difference(chat.client.settled))),
    )
    ledger.must_be_none(
        "clients that still stream",
        (
            chat.client.conv_id
            for chat in chats
            if chat.client.settled is not None and chat.client.settled["streaming"]
        ),
    )


def _difference(settled: Mapping[str, Any] | None) -> str | None:
    if settled is None:
        return "the client did not come to its end"
    client, snapshot = settled["client"], settled["snapshot"]
    if snapshot is None:
        return "the gateway gave no snapshot"
    if client == snapshot:
        return None
    if len(client) != len(snapshot):
        return f"{len(client)} entities, and {len(snapshot)} in the snapshot ({settled['status']})"
    first = next(pair for pair in zip(client, snapshot, strict=True) if pair[0] != pair[1])
    return f"{json.dumps(first[0])[:200]} for {json.dumps(first[1])[:200]} ({settled['status']})"


def _rest(found: ChatFindings, ledger: Ledger) -> None:
    rows = found.conversations
    ledger.must_be_none(
        "streams still open",
        [
            *(f"{row.id}: {row.streams}" for row in rows if row.streams != "[]"),
            *(f"{one.id} of {row.id}" for row in rows for one in row.entities if one.streams),
        ],
    )
    ledger.must_be_none(
        "prompts that nobody took", (f"{row.waiting} of {row.id}" for row in rows if row.waiting)
    )
    ledger.must_be_none("conversations still in a session", (row.id for row in rows if row.session_open))
