"""The laboratory: a platform with the faulty agent deployed, and how a session on it is looked at."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import AsyncIterator, Mapping
from importlib import resources
from typing import Any

import msgspec

from voicethere.cli.ears import DidNotHappen, Ears
from voicethere.cli.faults.observed import Observed, shown
from voicethere.client import (
    ConnectError,
    Credentials,
    PcmQueue,
    Session,
    SpeechEventType,
    connect_session,
    start_session,
)
from voicethere.core.ports import Synthesizer
from voicethere.testing.distributed import Distributed
from voicethere.testing.platform_process import Deployed, Operator, PlatformFailed, RunningPlatform
from voicethere.testing.roles_apart import RolesApart

CRASH_MESSAGE = "Sorry, something broke."
RUNNER_SETTINGS = {
    "hook_seconds": 8,
    "agent_start_seconds": 4,
    "connect_seconds": 4,
    "rejoin_seconds": 4,
    "idle_grace_seconds": 3,
}
"""Shorter limits than an operator would set, so that a fault that is a limit does not take minutes."""
IDLE_SECONDS = 30
OUTCOME_SECONDS = 90.0
SETTLE_SECONDS = 4.0
_SOUND = 0.01
_AUDIBLE_SECONDS = 0.3


class Lab(msgspec.Struct, frozen=True, kw_only=True):
    """A platform and its deployments: `voice` and `data`, and `…-idle` with an idle limit."""

    platform: RunningPlatform
    operator: Operator
    deployed: Mapping[str, Deployed]
    voice: Synthesizer
    control_url: str
    roles: RolesApart | Distributed | None = None

    @classmethod
    async def set_up(
        cls,
        platform: RunningPlatform,
        operator: Operator,
        voice: Synthesizer,
        roles: RolesApart | Distributed | None = None,
    ) -> Lab:
        """Deploy the faulty agent in every way that is needed; `roles` where they run apart."""
        bundle = resources.files("voicethere.cli.faults").joinpath("faulty_agent.py").read_bytes()
        deployed = {}
        for mode in ("voice", "data"):
            for idle in (False, True):
                settings: dict[str, Any] = {"error_message": CRASH_MESSAGE, "idle_timeout_enabled": idle}
                name = f"{mode}-idle" if idle else mode
                deployed[name] = await operator.deploy(
                    bundle, name=name, mode=mode, session_settings=settings
                )
        control_url = platform.base_url if roles is None else roles.control_plane.base_url
        return cls(
            platform=platform,
            operator=operator,
            deployed=deployed,
            voice=voice,
            control_url=control_url,
            roles=roles,
        )

    async def speech(self, text: str) -> bytes:
        """`text` as a microphone hears it."""
        pause = bytes(2 * (self.voice.sample_rate * 3 // 10))
        return pause + b"".join([part async for part in self.voice.synthesize(text)]) + pause


class Trial:
    """One session with one fault: what its client hears, when the fault was, what became of it."""

    def __init__(self, lab: Lab, fault: str, mode: str) -> None:
        self.lab = lab
        self.fault = fault
        self.agent_does = fault
        self.mode = mode
        self.deployed = lab.deployed[mode]
        self.ears = Ears()
        self.session_id = ""
        self.fault_at: float | None = None
        self.alive = False
        self.microphone = PcmQueue(lab.voice.sample_rate)

    def mark(self) -> None:
        """The fault is now."""
        self.fault_at = time.monotonic()

    @staticmethod
    def moment(epoch: float) -> float:
        """A moment of the agent's wall clock on this process's monotonic clock: both are of one machine."""
        return time.monotonic() - (time.time() - epoch)

    # ------------------------------------------------------------------ being the client

    async def start(self, *, base_url: str | None = None, timeout: float = 60.0) -> Credentials | None:
        """Start a session; None where that failed (and was told)."""
        started = await start_session(
            base_url or self.lab.platform.base_url,
            self.deployed.project_id,
            api_key=self.deployed.client_key,
            customer_context={"fault": self.agent_does},
            on_session_error=self.ears.on_error,
            timeout=timeout,
        )
        self.session_id = started.session_id
        return started.credentials

    @contextlib.asynccontextmanager
    async def connected(
        self, credentials: Credentials, *, connect_timeout: float = 30.0
    ) -> AsyncIterator[Session | None]:
        """Connect as the session's client; None where it ended before it was connected."""
        connecting = connect_session(
            credentials,
            customer_context={"fault": self.agent_does},
            on_session_error=self.ears.on_error,
            on_control_message=self.ears.on_message,
            on_speech_event=self.ears.on_speech_event,
            microphone=self.microphone if self.mode == "voice" else None,
            speaker=self.ears.sound if self.mode == "voice" else None,
            connect_timeout=connect_timeout,
        )
        try:
            session = await connecting
        except ConnectError:
            yield None
            return
        try:
            yield session
        finally:
            await session.close()

    async def say(self, text: str) -> None:
        """Speak into the microphone."""
        self.microphone.say(await self.lab.speech(text))

    async def outcome(self, session: Session) -> None:
        """Wait until the session is over, or shows that it goes on."""
        closed = asyncio.ensure_future(_end_of(session))
        alive = asyncio.create_task(self.shows_life(session))
        try:
            async with asyncio.timeout(OUTCOME_SECONDS):
                await asyncio.wait({closed, alive}, return_when=asyncio.FIRST_COMPLETED)
                if not closed.done():
                    # A failure may still be on its way: what is alive now must be so in a moment, too.
                    await asyncio.wait({closed}, timeout=SETTLE_SECONDS)
                self.alive = not closed.done()
        except TimeoutError:
            raise DidNotHappen("the session neither ended nor went on") from None
        finally:
            for task in (closed, alive):
                task.cancel()
            await asyncio.gather(closed, alive, return_exceptions=True)

    async def shows_life(self, session: Session) -> None:
        """Talk to the agent until it answers; what it says in the middle of a flood may be dropped."""
        word = f"alive? {time.monotonic()}"

        def answered() -> bool | None:
            return any(message.get("text") == word for message in self.ears.messages) or None

        for _ in range(int(OUTCOME_SECONDS)):
            session.send_chat(word)
            with contextlib.suppress(DidNotHappen):
                await self.ears.until("an echo", answered, seconds=1.0)
                return
        raise DidNotHappen("the agent answered nothing")

    # ------------------------------------------------------------------ looking at it

    async def observe(self, *, disturbed: bool, wait_for_end: bool = True) -> Observed:
        """Everything that can be seen of the session afterwards."""
        operator, project_id = self.lab.operator, self.deployed.project_id
        end_reason = "none"
        if self.alive:
            end_reason = "open"
        if self.session_id and wait_for_end:
            row = await self._ended()
            if not self.alive:
                end_reason = row["end_reason"] or "none"
        rows = await operator.errors(project_id, self.session_id) if self.session_id else []
        if (
            self.session_id
            and not rows
            and self.ears.errors
            and self.ears.errors[0][1].code.startswith("PROVISIONING")
        ):
            rows = await self._rows_of_failed_job()
        first = rows[0] if rows else None
        told_ms = None
        if self.ears.errors and self.fault_at is not None:
            told_ms = round((self.ears.errors[0][0] - self.fault_at) * 1000, 1)
        return Observed(
            client=[shown(error) for _, error in self.ears.errors],
            rows=[row["code"] for row in rows],
            cli=await self._cli_codes() if self.session_id else [],
            source=first["source"] if first else None,
            crash_kind=first["details"].get("crash_kind") if first else None,
            failure=first["details"].get("failure_code") if first else None,
            heard=self._heard(),
            end_reason=end_reason,
            disturbed=disturbed,
            told_ms=told_ms,
        )

    async def _ended(self) -> dict[str, Any]:
        for _ in range(int(OUTCOME_SECONDS / 0.1)):
            row = await self.lab.operator.session(self.deployed.project_id, self.session_id)
            if row["status"] != "active":
                return row
            await asyncio.sleep(0.1)
        raise DidNotHappen("the session is not recorded as ended")

    async def _rows_of_failed_job(self) -> list[dict[str, Any]]:
        """The row of a job that failed appears when the worker has it."""
        for _ in range(50):
            rows = await self.lab.operator.errors(self.deployed.project_id, self.session_id)
            if rows:
                return rows
            await asyncio.sleep(0.1)
        return []

    def _heard(self) -> Any:
        if any(event.event is SpeechEventType.ERROR for event in self.ears.speech):
            return "speech error"
        announced = any(
            message.get("type") == "agent_speak" and message.get("text") == CRASH_MESSAGE
            for message in self.ears.messages
        )
        if announced and self.ears.errors:
            since = self.ears.errors[0][0]
            if self.ears.sound.sound_seconds_since(since, threshold=_SOUND) > _AUDIBLE_SECONDS:
                return "crash message"
        return "nothing"

    async def _cli_codes(self) -> list[str]:
        """The codes that an operator at a terminal is shown for the session."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "voicethere.cli.main",
            "projects",
            "errors",
            "list",
            f"--project={self.deployed.project_id}",
            f"--session={self.session_id}",
            "--json",
            env={
                "VOICETHERE_API_KEY": self.lab.platform.api_key,
                "VOICETHERE_API_BASE": self.lab.control_url,
                "HOME": self.lab.platform.data_dir,
                "PATH": "",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, problem = await process.communicate()
        if process.returncode != 0:
            raise DidNotHappen(f"the command line shows nothing: {problem.decode()[-200:]}")
        return [row["code"] for row in msgspec.json.decode(out)["errors"]]


async def _end_of(session: Session) -> None:
    await session.closed


class Bystander:
    """A session that has nothing to do with any fault, and must not notice one."""

    def __init__(self, lab: Lab) -> None:
        self._trial = Trial(lab, "", "data")
        self._session: Session | None = None

    @contextlib.asynccontextmanager
    async def present(self) -> AsyncIterator[Bystander]:
        """Connected for as long as the context is open."""
        credentials = await self._trial.start()
        if credentials is None:
            raise PlatformFailed("the bystander's session could not be started")
        async with self._trial.connected(credentials) as session:
            self._session = session
            yield self

    async def disturbed(self) -> bool:
        """Whether it was told of an error, or cannot talk to its agent any more."""
        assert self._session is not None
        if self._trial.ears.errors:
            return True
        try:
            async with asyncio.timeout(10):
                await self._trial.shows_life(self._session)
        except (TimeoutError, DidNotHappen, ConnectionError):  # its session may end while it talks
            return True
        return bool(self._trial.ears.errors)
