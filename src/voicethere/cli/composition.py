"""The roles, each wired to the adapters that its process's configuration names.

`up` runs them together, `serve` each in a process of its own: the same pieces, no second way. (The runner is
always a process of its own: its piece is `runner_role`.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import msgspec
from litestar.types import ASGIApp, ControllerRouterHandler

from voicethere import __version__
from voicethere.adapters.http.app import build_app
from voicethere.adapters.http.auth import BearerAuth, new_key
from voicethere.adapters.http.cors import CorsPolicy
from voicethere.adapters.http.request_ids import RequestIds
from voicethere.adapters.relay.shared import SharedHub
from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.adapters.store import Store
from voicethere.cli import ops_metrics
from voicethere.cli.http_server import GRACE_SECONDS, Listener, serve_http
from voicethere.cli.process import Process
from voicethere.cli.retention import Retention
from voicethere.core.clock import SystemClock
from voicethere.core.ports import RelayHub
from voicethere.roles.control.plane import ControlPlane
from voicethere.roles.control.router import UNAVAILABLE, control_router
from voicethere.roles.gateway.access import Access, KeyOutOfPath
from voicethere.roles.gateway.api import CHAT_CORS, PLAIN_ERRORS_UNDER, chat_router
from voicethere.roles.gateway.gateway import Gateway
from voicethere.roles.gateway.settings import GatewaySettings, SocketLimits
from voicethere.roles.gateway.sockets import SOCKET_ROUTE, ChatWebSockets, chat_sockets, with_chat
from voicethere.roles.runner.verify import SandboxBundleVerifier
from voicethere.roles.sessions.api import SESSIONS_CORS, sessions_router
from voicethere.roles.sessions.service import SessionService
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.roles.sessions.signaling import (
    SIGNALING_PATH,
    UVICORN_SETTINGS,
    JoinTokenFilter,
    signaling_app,
    with_signaling,
)
from voicethere.roles.sessions.tokens import JoinTokens, new_secret
from voicethere.roles.sessions.worker import Worker
from voicethere.wire.control_plane import KeyKind
from voicethere.wire.relay import ChatOutput, ChatPromptTaken, ToService


async def run_worker(process: Process, store: Store) -> None:
    """Move errors from the queue into the database, and delete there what is past its time."""
    running = process.running
    queue = process.engines.queue()
    running.stack.push_async_callback(queue.aclose)
    worker = Worker(
        queue,
        store,
        on_batch=None if process.metrics is None else ops_metrics.measure_worker(process.metrics),
        # On shared engines other workers go on: what is left is theirs.
        empties_queue=not process.engines.distributed,
        tracer=process.tracer,
    )
    process.readiness.check("queue", queue.depth)
    if process.metrics is not None:
        ops_metrics.measure_queue(process.metrics, queue)
    configuration = process.configuration
    retention = Retention(
        store,
        days=configuration.retention_days,
        errors=configuration.retention_errors,
        every_seconds=configuration.retention_seconds,
    )
    await running.role("worker", worker.run(), worker.stop)
    await running.role("retention", retention.run())


async def open_relay(process: Process) -> RelayHub:
    """The services' end of the relay, open until the end.

    Raises:
        OSError: another session service of this machine listens on the relay's socket.
    """
    hub = await process.engines.hub()
    process.running.stack.push_async_callback(hub.aclose)
    process.readiness.state("relay", lambda: None if hub.linked else "the relay does not answer")
    return hub


def share_relay(process: Process, hub: RelayHub) -> tuple[RelayHub, RelayHub]:
    """The hub for a session service and for a chat gateway beside it."""

    def of_chats(message: ToService | None) -> bool:
        return isinstance(message, ChatOutput | ChatPromptTaken)

    shared = SharedHub(hub)
    process.running.stack.push_async_callback(shared.aclose)
    views = shared.view(lambda message: not of_chats(message)), shared.view(of_chats)
    shared.start()
    return views


async def run_gateway(process: Process, store: Store, hub: RelayHub) -> Gateway:
    """Conversations with agents; `hub` is read by nobody else."""
    metrics = process.metrics
    gateway = Gateway(
        store,
        hub,
        Access(store, BearerAuth(store.find_key)),
        SystemClock(),
        GatewaySettings(sockets=SocketLimits(of_process=process.configuration.chat_sockets)),
        tells_others=process.engines.distributed,
        on_applied=None if metrics is None else ops_metrics.measure_outputs(metrics),
    )
    if metrics is not None:
        ops_metrics.measure_gateway(metrics, gateway)
    # Whoever else reads the relay must not wait for one that reads no more.
    process.running.stack.push_async_callback(hub.aclose)
    await process.running.role("chat gateway", gateway.run(), gateway.aclose)
    return gateway


async def run_sessions(
    process: Process,
    store: Store,
    hub: RelayHub,
    *,
    runner_silent: Callable[[str], None] | None = None,
) -> SessionService:
    """Provisioning and signaling; returns once it can serve clients. `hub` is read by nobody else."""
    running, configuration = process.running, process.configuration
    producer = await process.producer()
    lease = process.engines.lease()
    running.stack.push_async_callback(lease.aclose)
    clock = SystemClock()
    secret = await process.engines.while_starting(lambda: store.platform_secret("join tokens", new_secret))
    service = SessionService(
        store=store,
        queue=producer.queue,
        hub=hub,
        lease=lease,
        tokens=JoinTokens(secret, clock),
        clock=clock,
        settings=SessionServiceSettings(
            # Runners and services on other machines take longer to find each other again.
            silent_seconds=8.0 if process.engines.distributed else 5.0,
            relink_grace_seconds=6.0 if process.engines.distributed else 3.0,
            public_base_url=configuration.public_url,
            trust_forwarded_headers=configuration.trust_forwarded_headers,
            ice_servers=configuration.ice_servers,
        ),
        runner_silent=runner_silent,
        on_job=None if process.metrics is None else ops_metrics.measure_jobs(process.metrics),
        tracer=process.tracer,
    )
    running.stack.push_async_callback(service.aclose)
    if process.metrics is not None:
        ops_metrics.measure_service(process.metrics, service)
        ops_metrics.measure_sessions(process.metrics, store.open_sessions_by_status)
    await running.role("session service", service.run())
    process.readiness.missing = "no session service coordinates yet"
    await service.ready()
    return service


def control_routes(process: Process, store: Store) -> ControllerRouterHandler:
    """The control plane's routes; bundles are tried in a sandbox of their own."""
    stack, layout = process.running.stack, process.layout
    queue = process.engines.queue()
    stack.push_async_callback(queue.aclose)
    if process.role == "control":
        process.readiness.check("queue", queue.depth)
    sandbox = ZygoteSandbox(preload=["voicethere.agent.child"], scratch_root=layout.verify_scratch)
    stack.push_async_callback(sandbox.aclose)
    bundles = process.engines.bundles()
    stack.push_async_callback(bundles.aclose)
    process.readiness.check("bundles", bundles.ping)
    plane = ControlPlane(
        store=store,
        bundles=bundles,
        verifier=SandboxBundleVerifier(sandbox, layout.verify_scratch),
        queue=queue,
        clock=SystemClock(),
        max_idle_seconds=process.configuration.max_idle_seconds,
    )
    return control_router(plane, BearerAuth(store.find_key))


def session_routes(service: SessionService, store: Store) -> ControllerRouterHandler:
    """The session API's routes."""
    return sessions_router(service, BearerAuth(store.find_key))


def chat_routes(gateway: Gateway) -> ControllerRouterHandler:
    """The chat gateway's routes; its socket is not among them."""
    return chat_router(gateway)


async def serve_routes(
    process: Process,
    routes: Sequence[ControllerRouterHandler],
    listener: Listener,
    *,
    signaling_of: SessionService | None = None,
    chats_of: Gateway | None = None,
) -> None:
    """Serve these routes; with the sockets of session service and chat gateway, where those are here.

    At the end, the chat gateway's sockets are the first to go.
    """
    observe = None if process.metrics is None else ops_metrics.measure_http(process.metrics)
    app: ASGIApp = build_app(
        routes,
        title="VoiceThere",
        version=__version__,
        description="Conversational agent sessions in which no session ever fails silently.",
        cors=SESSIONS_CORS if chats_of is None else _with_chats(SESSIONS_CORS),
        plain_errors_under=() if chats_of is None else PLAIN_ERRORS_UNDER,
        unavailable=UNAVAILABLE,
        observe=observe,
        tracer=process.tracer,
    )
    if signaling_of is not None:
        logging.getLogger("uvicorn.error").addFilter(JoinTokenFilter())
        signaling = signaling_app(signaling_of.gateway)
        app = with_signaling(app, RequestIds(signaling, observe=observe, route=SIGNALING_PATH))
    if chats_of is not None:
        sockets = RequestIds(chat_sockets(chats_of), observe=observe, route=SOCKET_ROUTE)
        app = KeyOutOfPath(with_chat(app, sockets))
    await serve_http(
        process.running,
        app,
        listener,
        settings=UVICORN_SETTINGS | {"ws": ChatWebSockets},
        grace_seconds=max(GRACE_SECONDS, process.configuration.drain_seconds),
    )
    if chats_of is not None:
        process.running.stack.push_async_callback(chats_of.drain)


def _with_chats(policy: CorsPolicy) -> CorsPolicy:
    return msgspec.structs.replace(
        policy,
        path_prefixes=(*policy.path_prefixes, *CHAT_CORS.path_prefixes),
        exposed_headers=CHAT_CORS.exposed_headers,
    )


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
