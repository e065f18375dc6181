"""The clients: a pool of real sessions, each of which keeps a journal of what its client was told.

`python -m tools.torture.clients`. A client talks to its agent, and at some time leaves, or has the agent
raise or die. All the while it looks whether its agent still answers: a session that neither
answers nor is said to be over is the silence that must not be.

The journal's events: `started` (a start begins), `provisioned`, `connected`, `state`, `told` (an error),
`asked` (of the agent, to break), `left` (the client closes), `ended` (somebody else did), `silent`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import time
from typing import Any

import msgspec

from tools.torture.crowd_process import crowd_process
from tools.torture.deployment import Deployment, Project
from tools.torture.journal import Journal
from voicethere.client import (
    ConnectError,
    Session,
    SessionEnd,
    SessionErrorEnvelope,
    SessionState,
    connect_session,
    start_session,
)

START_SECONDS = 90.0
PING_SECONDS = 1.0
SILENT_SECONDS = 60.0
"""Without an answer and without a word for so long: longer than a rejoin and every grace together."""
_PAUSE_SECONDS = 1.0


class Client:
    """One client after the other: `life` is one session's."""

    def __init__(
        self, base_url: str, project: Project, journal: Journal, number: int, chance: random.Random
    ) -> None:
        self._base_url = base_url
        self._project = project
        self._journal = journal
        self._number = number
        self._intent = chance.choices(["leave", "raise", "die", "stay"], [4, 2, 2, 2])[0]
        self._seconds = chance.uniform(25, 40) if self._intent == "stay" else chance.uniform(3, 15)
        self._pings = 0
        self._answered = asyncio.Event()
        self._told = asyncio.Event()

    async def life(self, winding_up: asyncio.Event) -> None:
        """From the start to the end; ends early once `winding_up`."""
        self._write("started", project=self._project.project_id, intent=self._intent)
        started = await start_session(
            self._base_url,
            self._project.project_id,
            api_key=self._project.client_key,
            timeout=START_SECONDS,
            on_session_error=self._on_error,
        )
        self._write("provisioned", session=started.session_id, ok=started.ok, code=started.code)
        if started.credentials is None:
            return
        try:
            session = await connect_session(
                started.credentials,
                on_session_error=self._on_error,
                on_control_message=self._on_message,
                on_state_change=self._on_state,
            )
        except ConnectError as error:
            self._ended(error.end)
            return
        self._write("connected")
        try:
            await self._talk(session, winding_up)
        finally:
            if session.state is SessionState.ENDED:
                self._ended(await session.closed)
            else:
                self._write("left")
            await session.close()

    async def _talk(self, session: Session, winding_up: asyncio.Event) -> None:
        over = asyncio.create_task(_end_of(session))
        winding = asyncio.create_task(winding_up.wait())
        try:
            leaves_at = time.monotonic() + self._seconds
            while time.monotonic() < leaves_at and not winding.done():
                if not await self._answers(session, over):
                    return
                await asyncio.wait({over, winding}, timeout=PING_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if self._intent in ("raise", "die"):
                self._told.clear()
                self._write("asked", what=self._intent)
                with contextlib.suppress(ConnectionError):
                    session.send_chat(self._intent)
                told = asyncio.create_task(self._told.wait())
                # What was asked while the connection was lost may be lost as well.
                await asyncio.wait({over, told}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
                told.cancel()
                await asyncio.wait({over}, timeout=2)
            await self._answers(session, over)
        finally:
            over.cancel()
            winding.cancel()

    async def _answers(self, session: Session, over: asyncio.Task[None]) -> bool:
        """Whether the agent answers; False once the session is over, or nobody says anything any more."""
        deadline = time.monotonic() + SILENT_SECONDS
        while time.monotonic() < deadline:
            self._answered.clear()
            self._pings += 1
            with contextlib.suppress(ConnectionError):
                session.send_chat(f"ping {self._pings}")
            answered = asyncio.create_task(self._answered.wait())
            await asyncio.wait({over, answered}, timeout=3, return_when=asyncio.FIRST_COMPLETED)
            answered.cancel()
            if over.done():
                return False
            if self._answered.is_set():
                return True
        self._write("silent", state=session.state.value)
        return False

    def _on_message(self, message: Any) -> None:
        if isinstance(message, dict) and message.get("text") == f"ping {self._pings}":
            self._answered.set()

    def _on_error(self, error: SessionErrorEnvelope) -> None:
        self._told.set()
        self._write(
            "told",
            code=error.code,
            recoverable=error.recoverable,
            occurred_at=error.occurred_at if isinstance(error.occurred_at, str) else None,
            message=error.message,
        )

    def _on_state(self, state: SessionState) -> None:
        self._write("state", state=state.value)

    def _ended(self, end: SessionEnd) -> None:
        self._write("ended", reason=end.reason, code=None if end.error is None else end.error.code)

    def _write(self, event: str, **fields: Any) -> None:
        self._journal.write(event, client=self._number, **fields)


async def _end_of(session: Session) -> None:
    await session.closed


class Pool:
    """So many clients at a time, until `wind_up`."""

    def __init__(
        self, base_url: str, deployment: Deployment, journal: Journal, *, size: int, seed: int
    ) -> None:
        self._base_url = base_url
        self._deployment = deployment
        self._journal = journal
        self._size = size
        self._chance = random.Random(seed)  # noqa: S311 - what clients do
        self._number = 0
        self._winding_up = asyncio.Event()

    def wind_up(self) -> None:
        """No new sessions; those that are there come to their ends."""
        self._winding_up.set()

    async def run(self) -> None:
        """Return once every client is done."""
        await asyncio.gather(*(self._one_after_another(place) for place in range(self._size)))

    async def _one_after_another(self, place: int) -> None:
        await asyncio.sleep(place * _PAUSE_SECONDS / 2)
        while not self._winding_up.is_set():
            self._number += 1
            project = self._chance.choice(self._deployment.projects)
            client = Client(self._base_url, project, self._journal, self._number, self._chance)
            await client.life(self._winding_up)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0.1, _PAUSE_SECONDS)):
                    await self._winding_up.wait()


async def run_clients(arguments: argparse.Namespace) -> None:
    """Until SIGTERM, and then until every client is done."""
    deployment = msgspec.json.decode(arguments.deployment.read_bytes(), type=Deployment)
    journal = Journal(arguments.journal)
    pool = Pool(arguments.base, deployment, journal, size=arguments.size, seed=arguments.seed)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, pool.wind_up)
    sys.stdout.write('{"serves": "clients"}\n')
    sys.stdout.flush()
    await pool.run()
    journal.write("done")


def main() -> None:
    """Run the pool."""
    crowd_process("clients", "A pool of clients that journal what they are told.", run_clients)


if __name__ == "__main__":
    main()
