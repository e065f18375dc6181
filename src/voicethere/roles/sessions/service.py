"""The session service: what callers may ask, the sockets of this process, and its turns as the coordinator.

Several may run on one relay and one database. Each answers every caller and hears every runner; the one that
holds the lease also coordinates (`coordinator`). Does not know HTTP (`api`) or sockets (`signaling`).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from voicethere.adapters.store.store import SessionRecord, Store
from voicethere.core.ports import Clock, ErrorQueuePort, Lease, RelayHub
from voicethere.core.provisioning import estimate_wait_seconds
from voicethere.core.tracing import NO_TRACER, Tracer
from voicethere.core.usage import check_monthly_usage, month_begun
from voicethere.errors.times import iso_from_epoch
from voicethere.roles.background import Background, cancelled
from voicethere.roles.sessions.coordinator import Coordinator
from voicethere.roles.sessions.gateway import SignalingGateway
from voicethere.roles.sessions.hosted import room_id_of
from voicethere.roles.sessions.local_rooms import LocalRooms
from voicethere.roles.sessions.moves import Moves
from voicethere.roles.sessions.outcomes import Outcomes
from voicethere.roles.sessions.patience import patiently
from voicethere.roles.sessions.placement import FIRST_GUESS_OF_A_SESSION
from voicethere.roles.sessions.provisioning import JobDone
from voicethere.roles.sessions.rooms import Rooms
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.roles.sessions.states import state_of
from voicethere.roles.sessions.tokens import JoinTokens
from voicethere.wire.control_plane import ValidationStatus
from voicethere.wire.relay import CapacityNow, RunnerHello, SessionMoved, SessionOver, SessionWanted
from voicethere.wire.session_api import (
    Credentials,
    Mode,
    ProvisioningStatus,
    SessionState,
)

_UNDER_WAY = (ProvisioningStatus.QUEUED, ProvisioningStatus.PROVISIONING)
_SETTLED = (ProvisioningStatus.READY, ProvisioningStatus.FAILED)
_SEEN_EVERY_SECONDS = 1.0

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
        >>> service = SessionService(store, queue, hub, lease, tokens, clock, SessionServiceSettings())
        >>> running = asyncio.create_task(service.run())
    """

    def __init__(
        self,
        store: Store,
        queue: ErrorQueuePort,
        hub: RelayHub,
        lease: Lease,
        tokens: JoinTokens,
        clock: Clock,
        settings: SessionServiceSettings,
        *,
        runner_silent: Callable[[str], None] | None = None,
        on_job: Callable[[JobDone], None] | None = None,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """`runner_silent` hears of a runner that is linked and says nothing any more, `on_job` of each
        provisioning job that is done here."""
        self._on_job = on_job
        self._tracer = tracer
        self.settings = settings
        self._store = store
        self._hub = hub
        self._lease = lease
        self._tokens = tokens
        self._clock = clock
        self._runner_silent = runner_silent
        self._background = Background()
        self._queueing = Background()
        self._moves = Moves()
        self._rooms = Rooms()
        self._outcomes = Outcomes(store=store, queue=queue, clock=clock, background=self._queueing)
        self.gateway = SignalingGateway(
            rooms=self._rooms,
            open_room=lambda session_id: self._local.open(session_id),
            claimed=self._claimed,
            hub=hub,
            tokens=tokens,
            clock=clock,
            limits=settings.signaling,
        )
        self._local = LocalRooms(
            store=store,
            clock=clock,
            settings=settings,
            rooms=self._rooms,
            gateway=self.gateway,
            background=self._background,
        )
        self._coordinator: Coordinator | None = None
        self._capacity: CapacityNow | None = None
        self._ready = asyncio.Event()
        self._linked = asyncio.Event()
        self._closing = asyncio.Event()

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Serve the relay and the clock until `aclose`, and coordinate while the lease is ours."""
        tasks = [
            asyncio.create_task(self._listen(), name="session service relay"),
            asyncio.create_task(self._hear_notices(), name="session service notices"),
            asyncio.create_task(self._tick_on(), name="session service clock"),
            asyncio.create_task(self._keep_the_lease(), name="session service lease"),
            asyncio.create_task(self._closing.wait(), name="session service closing"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancelled(tasks)
            await self._end_term()
        for task in done:
            task.result()

    async def ready(self) -> None:
        """Return once this service can serve clients: it coordinates, or another one does."""
        await self._ready.wait()

    async def runner_linked(self) -> None:
        """Return once some runner has linked for the first time."""
        await self._linked.wait()

    @property
    def coordinates(self) -> bool:
        """Whether it is this service that gives sessions to runners."""
        return self._coordinator is not None

    @property
    def sockets(self) -> int:
        """How many signaling sockets are open here."""
        return sum(len(room.sockets) for room in self._rooms)

    @property
    def ignored_signals(self) -> Mapping[str, int]:
        """How many signaling messages were ignored here, by reason."""
        return self.gateway.ignored

    @property
    def capacity(self) -> CapacityNow | None:
        """What the coordinator last said of runners and the line; None before it has."""
        return self._capacity if self._coordinator is None else self._coordinator.placement.capacity_now()

    def runner_died(self, runner_id: str) -> None:
        """For whoever keeps the runner: its process has ended, nobody need wait for it to come back."""
        if self._coordinator is not None:
            self._coordinator.hosting.runner_died(runner_id)

    async def aclose(self) -> None:
        """Close the signaling sockets (not the sessions: they live in the runners), and end `run`."""
        self._closing.set()
        self.gateway.close_all()
        await self._end_term()
        await self._lease.release()
        await self._background.aclose()
        # What is not queued by then is queued by the next process: the database knows what has no end.
        await self._queueing.aclose(patience_seconds=1.0)

    def tick(self) -> None:
        """Do what the clock says is due. `run` calls it a few times a second; a test calls it itself."""
        self._local.tick()
        if self._coordinator is not None:
            self._coordinator.tick()

    async def _listen(self) -> None:
        async for runner_id, message in self._hub.messages():
            try:
                self._local.heard(runner_id, message)
                if self._coordinator is not None:
                    self._coordinator.heard(runner_id, message)
            except Exception:
                _log.exception("relay_message_failed", runner_id=runner_id, message=type(message).__name__)
            if isinstance(message, RunnerHello):
                self._linked.set()

    async def _hear_notices(self) -> None:
        async for notice in self._hub.notices():
            match notice:
                case SessionMoved():
                    self._moves.moved(notice)
                case SessionOver():
                    self._local.over(notice)
                case CapacityNow():
                    self._capacity = notice
                case SessionWanted():
                    if self._coordinator is not None:
                        self._coordinator.wanted(notice)

    async def _tick_on(self) -> None:
        while True:
            await asyncio.sleep(self.settings.tick_seconds)
            try:
                self.tick()
            except Exception:
                _log.exception("tick_failed")

    # ------------------------------------------------------------------ coordinating

    async def _keep_the_lease(self) -> None:
        starting: asyncio.Task[None] | None = None
        try:
            while not self._closing.is_set():
                asked_at = time.monotonic()
                # Who cannot reach the runners must not decide about them: another one may.
                held = await self._lease.hold() if self._hub.linked else await self._let_the_lease_go()
                if held and self._coordinator is None:
                    starting = asyncio.create_task(self._begin_term(), name="session service term")
                elif not held and self._coordinator is not None:
                    _log.warning("coordination_lost")
                    if starting is not None:
                        await cancelled([starting])
                    await self._end_term()
                if not held:
                    self._ready.set()
                # What asking took is part of the time after which another may take it.
                await asyncio.sleep(max(0.0, self._lease.seconds / 4 - (time.monotonic() - asked_at)))
        finally:
            if starting is not None:
                await cancelled([starting])

    async def _let_the_lease_go(self) -> bool:
        await self._lease.release()
        return False

    async def _begin_term(self) -> None:
        coordinator = self._coordinator = Coordinator(
            store=self._store,
            hub=self._hub,
            clock=self._clock,
            settings=self.settings,
            tokens=self._tokens,
            outcomes=self._outcomes,
            runner_silent=self._runner_silent,
            on_job=self._on_job,
            tracer=self._tracer,
        )
        _log.info("coordination_begun")
        try:
            await coordinator.start()
            self._ready.set()
        except Exception:
            _log.exception("coordination_not_begun")
            await self._end_term()  # the next turn of the lease tries again

    async def _end_term(self) -> None:
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is not None:
            await coordinator.aclose()

    def _claimed(self, session_id: str) -> None:
        self._background.spawn(
            patiently(lambda: self._store.session_joined(session_id)), name=f"joined {session_id}"
        )

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
            UsageExceeded: the project has used up its sessions of this month; there is no session.
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
        await self._check_usage(project_id)
        if not wait_for_capacity and _is_full(self.capacity):
            raise CapacityExceeded(min(60, max(1, round(self._estimate(1)))))
        session_id = str(uuid.uuid4())
        record = await self._store.create_session(
            session_id=session_id,
            project_id=project_id,
            build_id=build_id,
            customer_context=customer_context,
            idempotency_key=idempotency_key,
            wait_for_capacity=wait_for_capacity,
        )
        if record.id == session_id:
            await self._hub.publish(SessionWanted(session_id=session_id))
        return record

    async def allowed_origins(self, project_id: str) -> Sequence[str]:
        """The origins whose pages may use the project; empty: all of them."""
        return (await self._store.get_project_settings(project_id)).allowed_origins

    async def knows_project(self, project_id: str, org_id: str | None) -> bool:
        """Whether this org has such a project."""
        return org_id is not None and await self._store.get_project(project_id, org_id=org_id) is not None

    async def find_session(self, session_id: str) -> SessionRecord | None:
        """The session as the database has it."""
        return await self._store.get_session(session_id)

    async def settled(self, session_id: str, *, seconds: float) -> SessionRecord | None:
        """The session once it is ready or failed, or as it is after `seconds`."""
        with self._moves.watch(session_id) as watch:
            record = await self._store.get_session(session_id)
            if record is None or record.status in _SETTLED:
                return record
            await watch.until(settled=True, seconds=seconds)
        return await self._store.get_session(session_id)

    async def worth_telling(self, record: SessionRecord) -> SessionRecord:
        """The session as a poll should tell of it: held for a moment while it is being provisioned.

        Most sessions are ready by then, and their clients need not ask again.
        """
        if record.status not in _UNDER_WAY:
            return record
        with self._moves.watch(record.id) as watch:
            now = await self._store.get_session(record.id)
            if now is None or now.status not in _UNDER_WAY:
                return now or record
            await watch.until(settled=False, seconds=self.settings.poll_hold_seconds)
        return await self._store.get_session(record.id) or record

    async def state(self, record: SessionRecord, *, signaling_url: str) -> SessionState:
        """What a poll is answered. Asking keeps the session's place in the line.

        A conversation's session is `ready` without credentials: it has no room to join.
        """
        place = None
        if record.status is ProvisioningStatus.WAITING:
            if self._is_seen_anew(record):
                await self._store.session_seen(record.id)
            place = await self._store.waiting_place(record.id)
        credentials = None
        if record.status is ProvisioningStatus.READY and record.conversation_id is None:
            credentials = await self.credentials(record, signaling_url=signaling_url)
        return state_of(
            record,
            place=place,
            wait_seconds=self.settings.rules.wait_seconds,
            estimated_wait_seconds=None if place is None else self._estimate(place.position),
            credentials=credentials,
        )

    def _is_seen_anew(self, record: SessionRecord) -> bool:
        """Whether this poll is worth a write: a client that polls in a loop must not cost one each time."""
        since = iso_from_epoch(self._clock.now() - _SEEN_EVERY_SECONDS)
        return record.last_seen is None or record.last_seen <= since

    def _estimate(self, position: int) -> float:
        """Seconds that the one at this position in the line may have to wait."""
        capacity = self.capacity
        if capacity is None:
            return estimate_wait_seconds(position, capacity=1, mean_session_seconds=FIRST_GUESS_OF_A_SESSION)
        return estimate_wait_seconds(
            position, capacity=capacity.capacity, mean_session_seconds=capacity.mean_session_seconds
        )

    async def credentials(self, record: SessionRecord, *, signaling_url: str) -> Credentials:
        """What a client connects with: a fresh token, refused once the session is over."""
        mode = record.mode or await self._mode(record.project_id)
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

    async def _check_usage(self, project_id: str) -> None:
        limit = (await self._store.get_project_settings(project_id)).monthly_session_limit
        if not limit:
            return
        now = self._clock.now()
        made = await self._store.count_sessions(project_id, since=month_begun(now))
        check_monthly_usage(limit, made, now)

    async def _check_build(self, project_id: str, build_id: str) -> None:
        build = await self._store.get_build(project_id, build_id)
        if build is None:
            raise BuildUnusable("build_id: the project has no such build; leave it out for the deployed one.")
        if build.validation_status is not ValidationStatus.VALID:
            raise BuildUnusable(
                f"build_id: this build is {build.validation_status.value}; only a valid one can be run."
            )


def _is_full(capacity: CapacityNow | None) -> bool:
    """Whether a new session would have to wait. Not without any runner: one may be starting."""
    return capacity is not None and capacity.runners > 0 and (capacity.waiting > 0 or capacity.free == 0)
