"""The session service: one object that ties provisioning, rooms, signaling and the relay together.

Knows what a caller may ask (start a session, look at one). Does not know HTTP (`api`) or sockets
(`signaling`).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import tenacity

from voicethere.adapters.store.store import SessionRecord, Store, StoreUnavailable
from voicethere.core.ports import Clock, ErrorQueuePort, RelayHub
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.sessions.background import Background
from voicethere.roles.sessions.gateway import SignalingGateway
from voicethere.roles.sessions.hosting import Hosting
from voicethere.roles.sessions.outcomes import Outcomes
from voicethere.roles.sessions.provisioning import Provisioner
from voicethere.roles.sessions.rooms import HostedSession, Room, Rooms, room_id_of
from voicethere.roles.sessions.runners import LinkedRunners
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.roles.sessions.states import state_of
from voicethere.roles.sessions.tokens import JoinTokens
from voicethere.wire.control_plane import ValidationStatus
from voicethere.wire.session_api import (
    Credentials,
    FailureCode,
    Mode,
    ProvisioningStatus,
    SessionState,
)

_UNDER_WAY = (ProvisioningStatus.QUEUED, ProvisioningStatus.PROVISIONING)
_UNFINISHED = (ProvisioningStatus.QUEUED, ProvisioningStatus.WAITING, ProvisioningStatus.PROVISIONING)

_log = structlog.get_logger(__name__)


class CapacityExceeded(Exception):
    """Nothing is free, and the caller did not want to wait. `retry_after_seconds` is a guess."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("every runner is full")
        self.retry_after_seconds = retry_after_seconds


class BuildUnusable(Exception):
    """The build that was asked for is not the project's, or is not valid; the words say which."""


class SessionService:
    """Lives in one process; `run` until `aclose`.

    `gateway` is what `signaling_app` serves, and `start_session` and `state` are what `sessions_router` does.

    Example:
        >>> service = SessionService(store, queue, hub, tokens, clock, SessionServiceSettings())
        >>> running = asyncio.create_task(service.run())
    """

    def __init__(
        self,
        store: Store,
        queue: ErrorQueuePort,
        hub: RelayHub,
        tokens: JoinTokens,
        clock: Clock,
        settings: SessionServiceSettings,
        *,
        runner_silent: Callable[[str], None] | None = None,
    ) -> None:
        """`runner_silent` hears of a runner that is linked and says nothing any more."""
        self.settings = settings
        self._store = store
        self._hub = hub
        self._tokens = tokens
        self._clock = clock
        self._background = Background()
        self._queueing = Background()
        self._rooms = Rooms()
        self._runners = LinkedRunners(now=clock.monotonic())
        self._outcomes = Outcomes(store=store, queue=queue, clock=clock, background=self._queueing)
        self.gateway = SignalingGateway(
            rooms=self._rooms, hub=hub, tokens=tokens, clock=clock, limits=settings.signaling
        )
        self._provisioner = Provisioner(
            store=store,
            hub=hub,
            clock=clock,
            settings=settings,
            runners=self._runners,
            outcomes=self._outcomes,
            background=self._background,
            opened=self._open_room,
        )
        self._placement = self._provisioner.placement
        self._hosting = Hosting(
            store=store,
            hub=hub,
            clock=clock,
            settings=settings,
            rooms=self._rooms,
            runners=self._runners,
            provisioner=self._provisioner,
            gateway=self.gateway,
            tokens=tokens,
            outcomes=self._outcomes,
            background=self._background,
            runner_silent=runner_silent,
        )
        self._ready = asyncio.Event()
        self._linked = asyncio.Event()
        self._closing = asyncio.Event()

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Pick up what an earlier process left, then serve the relay and the clock until `aclose`."""
        await self._restore()
        self._ready.set()
        relay = asyncio.create_task(self._listen(), name="session service relay")
        ticking = asyncio.create_task(self._tick_on(), name="session service clock")
        closing = asyncio.create_task(self._closing.wait(), name="session service closing")
        try:
            await asyncio.wait({relay, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (relay, ticking, closing):
                task.cancel()
            await asyncio.wait({relay, ticking, closing})

    async def ready(self) -> None:
        """Return once `run` has picked up what an earlier process left: serve clients from then on."""
        await self._ready.wait()

    async def runner_linked(self) -> None:
        """Return once some runner has linked for the first time."""
        await self._linked.wait()

    def runner_died(self, runner_id: str) -> None:
        """For whoever keeps the runner: its process has ended, nobody need wait for it to come back."""
        self._hosting.runner_died(runner_id)

    async def aclose(self) -> None:
        """Close the signaling sockets (not the sessions: they live in the runners), and end `run`."""
        self._closing.set()
        self.gateway.close_all()
        await self._background.aclose()
        # What is not queued by then is queued by the next process: the database knows what has no end.
        await self._queueing.aclose(patience_seconds=1.0)

    def tick(self) -> None:
        """Do what the clock says is due. `run` calls it a few times a second; a test calls it itself."""
        self._placement.tick()
        self._hosting.tick()

    async def _listen(self) -> None:
        async for runner_id, message in self._hub.messages():
            try:
                self._hosting.heard(runner_id, message)
            except Exception:
                _log.exception("relay_message_failed", runner_id=runner_id, message=type(message).__name__)
            if self._runners.runnerless_since is None:
                self._linked.set()

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(self.settings.tick_seconds)
            try:
                self.tick()
            except Exception:
                _log.exception("tick_failed")

    def _open_room(self, session: HostedSession) -> None:
        self._rooms.add(Room(session, opened_at=self._clock.monotonic()))

    async def _restore(self) -> None:
        """Jobs begin anew, failed ones are queued (again), and ready sessions wait for their runner."""
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(StoreUnavailable),
            wait=tenacity.wait_exponential(multiplier=0.1, max=2.0),
        ):
            with attempt:
                unfinished = await self._store.unfinished_sessions()
                hosted = [record for record in unfinished if record.status is ProvisioningStatus.READY]
                modes = {project: await self._mode(project) for project in {r.project_id for r in hosted}}
        self._hosting.restore(hosted, modes)
        for record in unfinished:
            if record.status in _UNFINISHED:
                self._provisioner.submit(record, wait_for_capacity=True)
            elif record.status is ProvisioningStatus.FAILED:
                code = record.failure_code or FailureCode.ORCHESTRATOR_ERROR
                await self._outcomes.job_failed(record, code, record.failure_message or "The job failed.")
        if unfinished:
            _log.info("sessions_picked_up", count=len(unfinished))

    # ------------------------------------------------------------------ what callers ask

    async def start_session(
        self,
        *,
        project_id: str,
        build_id: str | None,
        wait_for_capacity: bool,
        customer_context: dict[str, Any] | None,
        idempotency_key: str | None,
    ) -> SessionRecord:
        """A new session in status `queued`, or the one that this idempotency key has made before.

        Raises:
            CapacityExceeded: nothing is free, and the caller did not want to wait; there is no session.
            BuildUnusable: `build_id` is not a valid build of the project.
            LookupError: there is no such project.
            StoreUnavailable: the database is away.
        """
        if idempotency_key is not None:
            earlier = await self._store.find_repeated_session(project_id, idempotency_key)
            if earlier is not None:
                return earlier
        if build_id is not None:
            await self._check_build(project_id, build_id)
        if not wait_for_capacity and not self._placement.has_room:
            raise CapacityExceeded(min(60, max(1, round(self._placement.estimate(1)))))
        session_id = str(uuid.uuid4())
        record = await self._store.create_session(
            session_id=session_id,
            project_id=project_id,
            build_id=build_id,
            customer_context=customer_context,
            idempotency_key=idempotency_key,
        )
        if record.id == session_id:
            self._provisioner.submit(record, wait_for_capacity=wait_for_capacity)
        return record

    async def knows_project(self, project_id: str, org_id: str | None) -> bool:
        """Whether this org has such a project."""
        return org_id is not None and await self._store.get_project(project_id, org_id=org_id) is not None

    async def find_session(self, session_id: str) -> SessionRecord | None:
        """The session as the database has it."""
        return await self._store.get_session(session_id)

    async def settled(self, session_id: str, *, seconds: float) -> SessionRecord | None:
        """The session once it is ready or failed, or as it is after `seconds`."""
        await self._provisioner.settled(session_id, seconds=seconds)
        return await self._store.get_session(session_id)

    async def worth_telling(self, record: SessionRecord) -> SessionRecord:
        """The session as a poll should tell of it: held for a moment while it is being provisioned.

        Most sessions are ready by then, and their clients need not ask again.
        """
        if record.status not in _UNDER_WAY:
            return record
        await self._provisioner.worth_telling(record.id, seconds=self.settings.poll_hold_seconds)
        return await self._store.get_session(record.id) or record

    async def state(self, record: SessionRecord, *, signaling_url: str) -> SessionState:
        """What a poll is answered. Asking keeps the session's place in the line."""
        place = self._placement.poll(record.id)
        credentials = None
        if record.status is ProvisioningStatus.READY:
            credentials = await self.credentials(record, signaling_url=signaling_url)
        return state_of(
            record,
            place=place,
            estimated_wait_seconds=None if place is None else self._placement.estimate(place.position),
            clock=self._clock,
            credentials=credentials,
        )

    async def credentials(self, record: SessionRecord, *, signaling_url: str) -> Credentials:
        """What a client connects with: a fresh token, refused once the session is over."""
        room = self._rooms.get(record.id)
        mode = room.session.mode if room is not None else await self._mode(record.project_id)
        room_id = room_id_of(record.id)
        token = self._tokens.issue(record.id, room_id)
        return Credentials(
            session_id=record.id,
            mode=mode,
            join_token=token.token,
            signaling_url=signaling_url,
            room_id=room_id,
            ice_servers=self.settings.ice_servers,
            expires_at=iso_from_epoch(token.expires_at),
        )

    async def credentials_of_start(self, record: SessionRecord, *, signaling_url: str) -> Credentials:
        """The same, as a synchronous start gives them: with project and build."""
        credentials = await self.credentials(record, signaling_url=signaling_url)
        return msgspec.structs.replace(
            credentials, project_id=record.project_id, build_id=record.build_id or msgspec.UNSET
        )

    async def _mode(self, project_id: str) -> Mode:
        agent = await self._store.deployed_agent(project_id)
        return Mode.VOICE if agent is None else agent.mode

    async def _check_build(self, project_id: str, build_id: str) -> None:
        build = await self._store.get_build(project_id, build_id)
        if build is None:
            raise BuildUnusable("build_id: the project has no such build; leave it out for the deployed one.")
        if build.validation_status is not ValidationStatus.VALID:
            raise BuildUnusable(
                f"build_id: this build is {build.validation_status.value}; only a valid one can be run."
            )
