"""The roles, each wired to the adapters of one machine.

`up` runs them together, `serve` each in a process of its own: the same pieces, no second way. (The runner is
always a process of its own: its piece is in `serve`.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from litestar.types import ASGIApp, ControllerRouterHandler

from voicethere import __version__
from voicethere.adapters.bundles import DirectoryBundleStore
from voicethere.adapters.http.app import build_app
from voicethere.adapters.http.auth import BearerAuth, new_key
from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.adapters.relay.embedded import EmbeddedRelayHub
from voicethere.adapters.relay.lease_file import EmbeddedLease
from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.adapters.store import Store, StoreUnavailable
from voicethere.cli.layout import DataLayout
from voicethere.cli.producer_queue import producer_queue
from voicethere.cli.running import Running
from voicethere.core.clock import SystemClock
from voicethere.core.ports import QueueUnavailable
from voicethere.roles.control.plane import ControlPlane
from voicethere.roles.control.router import control_router
from voicethere.roles.runner.verify import SandboxBundleVerifier
from voicethere.roles.sessions.api import SESSIONS_CORS, sessions_router
from voicethere.roles.sessions.service import SessionService
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.roles.sessions.signaling import signaling_app, with_signaling
from voicethere.roles.sessions.tokens import JoinTokens, new_secret
from voicethere.roles.sessions.worker import Worker
from voicethere.wire.control_plane import KeyKind


async def open_store(running: Running, layout: DataLayout) -> Store:
    """The database, brought up to date."""
    store = await Store.open(layout.database_url)
    running.stack.push_async_callback(store.aclose)
    return store


async def run_worker(running: Running, layout: DataLayout, store: Store) -> None:
    """Move errors from the queue into the database. Several may run: one of them has its turn."""
    queue = EmbeddedErrorQueue(layout.queue)
    running.stack.push_async_callback(queue.aclose)
    worker = Worker(queue, store)
    await running.role("worker", worker.run(), worker.stop)


async def run_sessions(
    running: Running,
    layout: DataLayout,
    store: Store,
    *,
    public_url: str | None,
    runner_silent: Callable[[str], None] | None = None,
) -> SessionService:
    """Provisioning and signaling, over the relay of this data directory; returns once it can serve clients.

    Raises:
        OSError: another session service listens on the relay's socket, or it cannot be made.
    """
    queue = producer_queue(layout, layout.sessions_spool)
    running.stack.push_async_callback(queue.aclose)
    await queue.open()
    hub = await EmbeddedRelayHub.start(layout.relay)
    running.stack.push_async_callback(hub.aclose)
    lease = EmbeddedLease(layout.lease)
    running.stack.push_async_callback(lease.aclose)
    secret = await store.platform_secret("join tokens", new_secret)
    clock = SystemClock()
    service = SessionService(
        store=store,
        queue=queue,
        hub=hub,
        lease=lease,
        tokens=JoinTokens(secret, clock),
        clock=clock,
        settings=SessionServiceSettings(public_base_url=public_url),
        runner_silent=runner_silent,
    )
    running.stack.push_async_callback(service.aclose)
    await running.role("session service", service.run())
    await service.ready()
    return service


def control_routes(
    running: Running, layout: DataLayout, store: Store, *, max_idle_seconds: int
) -> ControllerRouterHandler:
    """The control plane's routes; bundles are tried in a sandbox of their own."""
    queue = EmbeddedErrorQueue(layout.queue)
    running.stack.push_async_callback(queue.aclose)
    sandbox = ZygoteSandbox(preload=["voicethere.agent.child"], scratch_root=layout.verify_scratch)
    running.stack.push_async_callback(sandbox.aclose)
    plane = ControlPlane(
        store=store,
        bundles=DirectoryBundleStore(layout.bundles),
        verifier=SandboxBundleVerifier(sandbox, layout.verify_scratch),
        queue=queue,
        clock=SystemClock(),
        max_idle_seconds=max_idle_seconds,
    )
    return control_router(plane, BearerAuth(store.find_key))


def session_routes(service: SessionService, store: Store) -> ControllerRouterHandler:
    """The session API's routes."""
    return sessions_router(service, BearerAuth(store.find_key))


def http_app(
    routes: Sequence[ControllerRouterHandler], *, signaling_of: SessionService | None = None
) -> ASGIApp:
    """One app of these routes; with the signaling socket where the session service is here."""
    app: ASGIApp = build_app(
        routes,
        title="VoiceThere",
        version=__version__,
        description="Conversational agent sessions in which no session ever fails silently.",
        cors=SESSIONS_CORS,
        unavailable=(StoreUnavailable, QueueUnavailable),
    )
    return app if signaling_of is None else with_signaling(app, signaling_app(signaling_of.gateway))


async def first_key(store: Store) -> str | None:
    """An org key, the first time that anybody asks."""
    org_id = await store.ensure_default_org()
    if await store.list_keys(org_id):
        return None
    token, digest, prefix = new_key("org")
    await store.create_key(
        org_id=org_id,
        name="first key",
        kind=KeyKind.ADMIN,
        project_id=None,
        token_hash=digest,
        prefix=prefix,
        expires_at=None,
    )
    return token
