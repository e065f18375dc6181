"""Data sessions from a page: WebRTC without microphone permission, failure, a graceful end, coming back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from importlib import resources

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.browser.caller import Caller, calling_page
from tests.browser.chromium import chromium
from tests.e2e.agents import ECHO
from tests.e2e.waiting import eventually
from voicethere.testing.platform_process import Deployed, Operator, RunningPlatform

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(90),
    pytest.mark.asyncio(loop_scope="module"),
]

CONTEXT = {"userId": "u_123", "tags": ["a", "ü"], "vip": True}
ERROR_MESSAGE = "Sorry, that went wrong."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Without fake media: it hides its addresses behind mDNS names, as browsers do."""
    async with chromium() as started:
        yield started


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def echo(operator: Operator) -> Deployed:
    return await operator.deploy(
        ECHO, name="echo", mode="data", session_settings={"error_message": ERROR_MESSAGE}
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def demo_agent(operator: Operator) -> Deployed:
    bundle = resources.files("voicethere.cli.demo").joinpath("demo_agent.py").read_bytes()
    return await operator.deploy(bundle, name="demo", mode="data")


@pytest_asyncio.fixture(loop_scope="module")
async def caller(browser: Browser, origin: str, platform: RunningPlatform) -> AsyncIterator[Caller]:
    async with calling_page(browser, origin, platform) as ready:
        yield ready


async def test_a_raising_handler_is_told_to_the_page_before_its_channel_closes(
    caller: Caller, echo: Deployed, operator: Operator
) -> None:
    session_id = await caller.prepare(
        echo, hello=CONTEXT, start={"customer_context": {"replaced": "by the hello"}}
    )
    await caller.connect()

    events = await caller.events()
    at = {event["kind"]: event["at"] for event in reversed(events)}
    opened = max(event["at"] for event in events if event["kind"] == "channel-open")
    print(
        f"\nset-up in Chromium: {opened - at['socket-open']:.0f} ms from joining to both channels open, "
        f"{opened - at['starting']:.0f} ms from POST /v1/sessions"
    )
    candidates = [event["candidate"].split() for event in events if event["kind"] == "candidate"]
    hosts = [fields[4] for fields in candidates if fields[7] == "host"]
    assert hosts, f"the browser trickled no host candidate: {candidates}"
    assert all(host.endswith(".local") for host in hosts), hosts

    assert (await caller.message("started"))["context"] == CONTEXT
    await caller.chat("hello, agent ✓")
    assert (await caller.message("echo"))["text"] == "hello, agent ✓"
    for label in ("voice-control", "voicethere-sync"):
        sent = [*range(256), len(label)]
        await caller.page.evaluate("([label, bytes]) => call.sendBinary(label, bytes)", [label, sent])
        assert (await caller.event("binary", label=label))["bytes"] == sent

    await caller.chat("raise")
    await caller.event("channel-closed", label="voice-control")
    await caller.event("channel-closed", label="voicethere-sync")
    assert (await caller.event("socket-closed"))["code"] == 1000

    events = await caller.events()
    told = [
        place
        for place, event in enumerate(events)
        if event["kind"] == "message" and event["message"]["type"] == "session_error"
    ]
    closed = [place for place, event in enumerate(events) if event["kind"] == "channel-closed"]
    assert len(told) == 1
    assert told[0] < min(closed)
    assert events[told[0]]["label"] == "voice-control"
    envelope = events[told[0]]["message"]
    stack, occurred_at = envelope.pop("stack"), envelope.pop("occurred_at")
    assert envelope == {
        "type": "session_error",
        "code": "AGENT_HANDLER_FAILED",
        "message": ERROR_MESSAGE,
        "session_id": session_id,
        "project_id": echo.project_id,
        "build_id": echo.build_id,
        "recoverable": False,
        "customer_context": CONTEXT,
    }
    assert "agent.py" in stack
    assert stack.rstrip().splitlines()[-1].startswith("RuntimeError: no:")
    assert "sk-live" not in stack

    (row,) = await eventually(
        "the stored row", lambda: operator.errors(echo.project_id, session_id), lambda rows: bool(rows)
    )
    assert row["code"] == "AGENT_HANDLER_FAILED"
    assert row["source"] == "agent"
    assert row["orchestrator_session_id"] == session_id
    assert row["client_message"] == ERROR_MESSAGE
    assert row["message"].startswith("RuntimeError: no:")
    assert row["stack_trace"] == stack
    assert row["customer_context"] == CONTEXT
    assert row["occurred_at"] == occurred_at


async def test_a_page_that_says_session_close_leaves_a_session_without_errors(
    caller: Caller, echo: Deployed, operator: Operator
) -> None:
    session_id = await caller.prepare(echo, start={"async": False})
    assert (await caller.event("started"))["status"] == 200
    await caller.connect()
    await caller.message("started")

    await caller.send({"type": "session_close", "reason": "the person hung up"})
    await caller.event("channel-closed", label="voice-control")
    await caller.event("socket-closed")

    row = await eventually(
        "the recorded end",
        lambda: operator.session(echo.project_id, session_id),
        lambda session: session["status"] != "active",
    )
    assert (row["status"], row["end_reason"]) == ("ended", "client_close_signal")
    assert row["ended_at"] is not None
    assert await operator.errors(echo.project_id, session_id) == []
    told = [e["message"]["type"] for e in await caller.events() if e["kind"] == "message"]
    assert "session_error" not in told

    state = await caller.page.evaluate("id => call.request('GET', `/v1/sessions/${id}`)", session_id)
    assert state["body"]["end_reason"] == "client_close_signal"
    assert state["body"]["ended_at"] is not None


async def test_a_page_that_joins_again_gets_a_fresh_offer_for_the_same_session(
    caller: Caller, demo_agent: Deployed, operator: Operator
) -> None:
    session_id = await caller.prepare(demo_agent, hello=CONTEXT)
    await caller.connect()
    await caller.send({"type": "which_process"})
    pid = (await caller.message("process"))["pid"]

    # The signaling socket only: the connection itself goes on. Joining again uses the newest token.
    await caller.page.evaluate("() => call.socket.close()")
    await caller.event("socket-closed")
    await caller.chat("still connected")
    await caller.message("agent_speak", text="You said: still connected")

    await caller.connect(leg=2)
    await caller.event("channel-closed", leg=1, label="voice-control")
    await caller.send({"type": "which_process"})
    assert (await caller.event("message", leg=2, message={"type": "process"}))["message"]["pid"] == pid
    await caller.chat("back again")
    await caller.event("message", leg=2, message={"type": "agent_speak", "text": "You said: back again"})

    session = await operator.session(demo_agent.project_id, session_id)
    assert session["status"] == "active"
    assert await operator.errors(demo_agent.project_id, session_id) == []
    offers = [e for e in await caller.events() if e["kind"] == "signal" and e["message"]["type"] == "offer"]
    assert len(offers) == 2
    await caller.send({"type": "session_close"})
    await caller.event("channel-closed", leg=2, label="voice-control")
