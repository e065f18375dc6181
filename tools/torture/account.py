"""The account of a run: what was minted, accepted, stored and told, and every difference. Pure.

Knows what must come of a run. Does not know where its figures were read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from tools.torture.chat_account import ChatFindings, settle_chats
from tools.torture.ledger import Account, Ledger
from tools.torture.rows import Letter, LoggedError, Row, SessionRow
from tools.torture.synthetic import words_of

_LOCAL_CODES = ("WEBRTC_", "PROVISIONING_")
"""Codes that a client finds out by itself: no row belongs to them."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was read after a run. Events are those of the journals (`journal`)."""

    producer_events: Sequence[Mapping[str, Any]]
    client_events: Sequence[Mapping[str, Any]]
    chats: ChatFindings
    rows: Sequence[Row]
    sessions: Sequence[SessionRow]
    letters: Sequence[Letter]
    suppressed: int
    logged: Sequence[LoggedError]
    killed_instances: frozenset[str]
    """Processes that were killed: what they had minted and could not queue yet died with them."""
    spoken_by_services: frozenset[str]
    """Sessions of which a session service has logged that it found them failed or lost."""
    waiting: int
    """Items still in the queue."""
    spooled_files: Sequence[str]
    """Spool files that are still there after every process has ended in order."""
    restless: Sequence[str]
    """What had not come to its end by itself, before the processes were asked to."""
    left_over: Sequence[str]
    """Processes, sockets and the like that should be gone."""
    died_by_themselves: Sequence[str]
    """Processes that ended though nobody had killed them."""


class _Told(msgspec.Struct):
    """What one client's journal says of its session."""

    session_id: str = ""
    project_id: str = ""
    started: bool = False
    provisioned: bool = False
    connected: bool = False
    left: bool = False
    ended: str | None = None
    failed_start: str | None = None
    silent: bool = False
    errors: list[Mapping[str, Any]] = msgspec.field(default_factory=list)
    events: list[Mapping[str, Any]] = msgspec.field(default_factory=list)

    @property
    def heard_of_it(self) -> bool:
        """Whether an error told it: not by its own leaving."""
        return self.failed_start is not None or any(not error["recoverable"] for error in self.errors)

    @property
    def knows(self) -> bool:
        """Whether the client was told that its session is over, or ended it itself."""
        return self.heard_of_it or self.left or self.ended is not None


def settle(found: Findings) -> Account:
    """The account."""
    ledger = Ledger()
    _errors(found, ledger)
    _runner_errors(found, ledger)
    _sessions(found, ledger)
    settle_chats(found.chats, ledger, found.rows, found.logged, found.killed_instances)
    ledger.must_be_none("left in the queue", [f"{found.waiting} items"] if found.waiting else [])
    ledger.must_be_none("left in spools", found.spooled_files)
    ledger.must_be_none("not at rest", found.restless)
    ledger.must_be_none("left over", found.left_over)
    ledger.must_be_none("ended by themselves", found.died_by_themselves)
    return Account(figures=ledger.figures, differences=ledger.differences, remarks=ledger.remarks)


def _errors(found: Findings, ledger: Ledger) -> None:
    minted = {event["id"]: event for event in found.producer_events if event["event"] == "minted"}
    accepted = {event["id"] for event in found.producer_events if event["event"] == "accepted"}
    rows = {row.id: row for row in found.rows}
    synthetic = [row for row in found.rows if row.id in minted]
    ledger.count("minted", len(minted))
    ledger.count("accepted", len(accepted))
    ledger.count("stored", len(synthetic))
    ledger.count("stored, in doubt", len({row.id for row in synthetic} - accepted))
    ledger.must_be_none("accepted but missing", sorted(accepted - rows.keys()))
    ledger.must_be_none(
        "duplicates",
        sorted(identity for identity, count in Counter(r.id for r in found.rows).items() if count > 1),
    )
    ledger.must_be_none(
        "out of its project",
        (
            f"{row.id} is in {row.project_id}, and was minted for {minted[row.id]['project']}"
            for row in synthetic
            if row.project_id != minted[row.id]["project"]
            or row.session_id != minted[row.id]["session"]
            or row.message != words_of(row.id, row.project_id)
        ),
    )
    logged = {error.id for error in found.logged}
    ledger.must_be_none(
        "stored but never minted",
        (
            f"{row.id}: {row.code} of session {row.session_id}"
            for row in found.rows
            if row.id not in minted
            and row.id not in logged
            and row.session_id not in found.spoken_by_services
        ),
    )
    ledger.must_be_none(
        "dead letters", (f"{letter.problem}: {letter.data[:200]}" for letter in found.letters)
    )
    ledger.count("suppressed", found.suppressed)


def _runner_errors(found: Findings, ledger: Ledger) -> None:
    rows = {row.id: row for row in found.rows}
    missing = [error for error in found.logged if error.id not in rows]
    ledger.count("runners' errors, minted", len(found.logged))
    ledger.count("runners' errors, stored", len(found.logged) - len(missing))
    ledger.remark(
        "runners' errors, died with the process before a put returned",
        (f"{e.id} of {e.instance}" for e in missing if e.instance in found.killed_instances),
    )
    ledger.must_be_none(
        "runners' errors missing",
        (f"{e.id} of {e.instance}" for e in missing if e.instance not in found.killed_instances),
    )
    ledger.must_be_none(
        "runners' errors out of their project",
        (
            f"{e.id} is in {rows[e.id].project_id}, and was minted for {e.project_id}"
            for e in found.logged
            if e.id in rows and (rows[e.id].project_id, rows[e.id].session_id) != (e.project_id, e.session_id)
        ),
    )


def _sessions(found: Findings, ledger: Ledger) -> None:
    clients = _clients(found.client_events)
    rows = {row.id: row for row in found.sessions}
    by_session: dict[str, list[Row]] = {}
    for row in found.rows:
        by_session.setdefault(row.session_id, []).append(row)
    ledger.count("sessions started", sum(client.started for client in clients))
    ledger.count("sessions connected", sum(client.connected for client in clients))
    ledger.count("sessions left by their client", sum(client.left for client in clients))
    died = [client for client in clients if client.session_id in rows and rows[client.session_id].failed]
    ledger.count("sessions that died", len(died))
    ledger.count("their clients told", sum(client.knows for client in died))
    ledger.count("of these by an error", sum(client.heard_of_it for client in died))
    ledger.must_be_none(
        "untold", (_shown(client, rows) for client in clients if client.silent or not client.knows)
    )
    ledger.must_be_none(
        "without an end", (f"{row.id}: {row.status}" for row in found.sessions if row.ended_at_ms is None)
    )
    ledger.must_be_none(
        "failed without an error",
        (
            f"{row.id}: {row.end_reason}"
            for row in found.sessions
            if row.failed and not any(not error.recoverable for error in by_session.get(row.id, []))
        ),
    )
    ledger.must_be_none(
        "of another project",
        (
            f"{client.session_id} is of {rows[client.session_id].project_id}, not {client.project_id}"
            for client in clients
            if client.session_id in rows and rows[client.session_id].project_id != client.project_id
        ),
    )
    ledger.remark(
        "told of an end, though the session is fine",
        (
            _shown(client, rows)
            for client in clients
            if not client.left
            and (client.ended is not None or client.failed_start is not None)
            and client.session_id in rows
            and not rows[client.session_id].failed
        ),
    )
    ledger.remark(
        "told of an error that has no row",
        (
            f"{error['code']} of {client.session_id}"
            for client in clients
            for error in client.errors
            if not error["code"].startswith(_LOCAL_CODES)
            and not any(row.code == error["code"] for row in by_session.get(client.session_id, []))
        ),
    )


def _clients(events: Iterable[Mapping[str, Any]]) -> Sequence[_Told]:
    clients: dict[int, _Told] = {}
    for event in events:
        if "client" not in event:
            continue
        client = clients.setdefault(event["client"], _Told())
        client.events.append(event)
        match event["event"]:
            case "started":
                client.started = True
                client.project_id = event["project"]
            case "provisioned":
                client.provisioned = True
                client.session_id = event["session"]
                client.failed_start = event["code"]
            case "connected":
                client.connected = True
            case "told":
                client.errors.append(event)
            case "left":
                client.left = True
            case "ended":
                client.ended = event["reason"]
            case "silent":
                client.silent = True
    return list(clients.values())


def _shown(client: _Told, rows: Mapping[str, SessionRow]) -> str:
    row = rows.get(client.session_id)
    journal = " → ".join(_event(event, client.events[0]["at"]) for event in client.events)
    what = "no row" if row is None else f"{row.status}, {row.end_reason}, on {row.runner_id}"
    return f"{client.session_id or 'no session'} ({what}): {journal}"


def _event(event: Mapping[str, Any], start: float) -> str:
    known = ("state", "code", "reason", "intent", "what")
    words = " ".join(str(event[key]) for key in known if event.get(key) is not None)
    return f"{event['at'] - start:.1f}s {event['event']} {words}".rstrip()
