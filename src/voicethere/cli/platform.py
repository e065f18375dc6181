"""The embedded platform: control plane, session service and worker in one process, the runner in another.

`Platform` wires the roles to the adapters of one machine, and supervises the runner's process.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import structlog
import uvicorn
from litestar.types import ASGIApp

from voicethere import __version__
from voicethere.adapters.bundles import DirectoryBundleStore
from voicethere.adapters.http.app import build_app
from voicethere.adapters.http.auth import BearerAuth, new_key
from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.adapters.relay.embedded import EmbeddedRelayHub
from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.adapters.store import Store, StoreUnavailable
from voicethere.cli.layout import DataLayout
from voicethere.core.clock import SystemClock
from voicethere.core.ports import QueueUnavailable
from voicethere.roles.control.plane import ControlPlane
from voicethere.roles.control.router import control_router
from voicethere.roles.runner.verify import SandboxBundleVerifier
from voicethere.roles.sessions.api import SESSIONS_CORS, sessions_router
from voicethere.roles.sessions.service import SessionService
from voicethere.roles.sessions.settings import SessionServiceSettings
from voicethere.roles.sessions.signaling import (
    UVICORN_SETTINGS,
    JoinTokenFilter,
    signaling_app,
    with_signaling,
)
from voicethere.roles.sessions.tokens import JoinTokens, load_secret
from voicethere.roles.sessions.worker import Worker
from voicethere.wire.control_plane import KeyKind

_log = structlog.get_logger(__name__)

_RUNNER_START_SECONDS = 30.0
_RUNNER_STOP_SECONDS = 15.0
_RESTART_PAUSE_SECONDS = 1.0


class PlatformBusy(Exception):
    """Another platform serves from this data directory."""


class PlatformSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `voicethere up` can be told. `port` 0 takes a free one; `public_url` is what clients see."""

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str | None = None
    capacity: int = 64
    host_addresses: tuple[str, ...] = ()
    strict_sandbox: bool = False
    max_idle_seconds: int = 120
    log_level: str = "INFO"
    runner_changes: tuple[str, ...] = ()


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What is being served. `api_key` is the first org key; None after the first start."""

    base_url: str
    api_key: str | None
    data_dir: str
    runner_pid: int


class Platform:
    """Use as `async with Platform.start(settings) as platform:`; leaving ends everything in order."""

    def __init__(self, settings: PlatformSettings) -> None:
        self._settings = settings
        self._layout = DataLayout(settings.data_dir)
        self._runner: subprocess.Popen[bytes] | None = None
        self._leaving = asyncio.Event()
        self.stopped = asyncio.Event()
        """Set by whoever wants the platform to end."""
        self.problem: str | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, settings: PlatformSettings) -> AsyncIterator[tuple[Platform, Serving]]:
        """Start all roles and wait until the runner is linked.

        Raises:
            PlatformBusy: another platform holds the data directory.
            OSError: the port or the data directory cannot be used.
        """
        platform = cls(settings)
        async with contextlib.AsyncExitStack() as stack:
            yield platform, await platform._start(stack)

    async def _start(self, stack: contextlib.AsyncExitStack) -> Serving:
        layout, settings = self._layout, self._settings
        layout.prepare()
        self._hold(stack)
        listener = socket.create_server((settings.host, settings.port), reuse_port=False, backlog=512)
        stack.callback(listener.close)
        host, port = listener.getsockname()[:2]
        base_url = settings.public_url or f"http://{_url_host(settings.host, host)}:{port}"

        clock = SystemClock()
        store = await Store.open(layout.database_url)
        stack.push_async_callback(store.aclose)
        queue = EmbeddedErrorQueue(layout.queue)
        stack.push_async_callback(queue.aclose)
        worker = Worker(queue, store)
        await self._role(stack, "worker", worker.run(), worker.stop)

        hub = await EmbeddedRelayHub.start(layout.relay)
        stack.push_async_callback(hub.aclose)
        service = SessionService(
            store=store,
            queue=queue,
            hub=hub,
            tokens=JoinTokens(load_secret(layout.join_secret), clock),
            clock=clock,
            settings=SessionServiceSettings(public_base_url=settings.public_url),
        )
        stack.push_async_callback(service.aclose)
        await self._role(stack, "session service", service.run())
        await service.ready()

        sandbox = ZygoteSandbox(preload=["voicethere.agent.child"], scratch_root=layout.verify_scratch)
        stack.push_async_callback(sandbox.aclose)
        plane = ControlPlane(
            store=store,
            bundles=DirectoryBundleStore(layout.bundles),
            verifier=SandboxBundleVerifier(sandbox, layout.verify_scratch),
            queue=queue,
            clock=clock,
            max_idle_seconds=settings.max_idle_seconds,
        )
        auth = BearerAuth(store.find_key)
        app = build_app(
            [control_router(plane, auth), sessions_router(service, auth)],
            title="VoiceThere",
            version=__version__,
            description="Conversational agent sessions in which no session ever fails silently.",
            cors=SESSIONS_CORS,
            unavailable=(StoreUnavailable, QueueUnavailable),
        )
        await self._serve_http(stack, with_signaling(app, signaling_app(service.gateway)), listener)
        api_key = await _first_key(store)
        stack.push_async_callback(self._stop_runner)
        self._runner = self._start_runner()
        await self._role(stack, "runner's keeper", self._keep_runner())
        async with asyncio.timeout(_RUNNER_START_SECONDS):
            await service.runner_linked()
        return Serving(
            base_url=base_url,
            api_key=api_key,
            data_dir=str(layout.root),
            runner_pid=self._runner.pid,
        )

    def _hold(self, stack: contextlib.AsyncExitStack) -> None:
        lock = stack.enter_context(self._layout.lock.open("a"))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PlatformBusy(
                f"another voicethere serves from {self._layout.root}; end it, or name another --data-dir"
            ) from error

    async def _role(
        self, stack: contextlib.AsyncExitStack, name: str, work: Any, stop: Any | None = None
    ) -> None:
        """Run `work` until the end; a role that ends by itself ends the platform, with the reason."""
        task: asyncio.Task[None] = asyncio.create_task(work, name=name)

        def over(done: asyncio.Task[None]) -> None:
            if self._leaving.is_set() or done.cancelled():
                return
            error = done.exception()
            self.problem = f"the {name} ended" + (f": {error}" if error else "")
            _log.error("role_ended", role=name, exc_info=error)
            self.stopped.set()

        task.add_done_callback(over)

        async def end() -> None:
            self._leaving.set()
            if stop is None:
                task.cancel()
            else:
                stopping = stop()
                if asyncio.iscoroutine(stopping):
                    await stopping
            await asyncio.wait([task])

        stack.push_async_callback(end)

    async def _serve_http(
        self, stack: contextlib.AsyncExitStack, app: ASGIApp, listener: socket.socket
    ) -> None:
        logging.getLogger("uvicorn.error").addFilter(JoinTokenFilter())
        server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=3,
                server_header=False,
                **UVICORN_SETTINGS,
            )
        )

        def stop() -> None:
            server.should_exit = True

        await self._role(stack, "HTTP server", server.serve(sockets=[listener]), stop)
        await server.listening.wait()

    # ------------------------------------------------------------------ the runner's process

    def _start_runner(self) -> subprocess.Popen[bytes]:
        settings, layout = self._settings, self._layout
        command = [
            sys.executable,
            "-m",
            "voicethere.cli.main",
            "serve",
            "runner",
            f"--data-dir={layout.root}",
            f"--runner-id=runner-{os.getpid()}",
            f"--capacity={settings.capacity}",
            f"--log-level={settings.log_level}",
            f"--log-file={layout.logs / 'runner.log'}",
            "--until-stdin-closes",
            *(f"--host-address={address}" for address in settings.host_addresses),
            *(f"--set={change}" for change in settings.runner_changes),
            *(["--strict-sandbox"] if settings.strict_sandbox else []),
        ]
        # Its own session: Ctrl-C in the terminal is for us, and we end the runner in order.
        with (layout.logs / "runner.err").open("ab") as errors:
            return subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=errors, stderr=errors, start_new_session=True
            )

    async def _keep_runner(self) -> None:
        """Start the runner again when it dies: what it hosted is over, what comes next is not."""
        while True:
            assert self._runner is not None
            status = await asyncio.to_thread(self._runner.wait)
            if not self._leaving.is_set():
                _log.error("runner_died", status=status)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), _RESTART_PAUSE_SECONDS)
                return
            self._runner = self._start_runner()

    async def _stop_runner(self) -> None:
        self._leaving.set()
        runner = self._runner
        if runner is None:
            return
        with contextlib.suppress(ProcessLookupError):
            runner.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(runner.wait, _RUNNER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _log.error("runner_killed", reason=f"it did not end within {_RUNNER_STOP_SECONDS:g} s")
            runner.kill()
            await asyncio.to_thread(runner.wait)
        assert runner.stdin is not None
        runner.stdin.close()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the platform has its own. `listening` is set once it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


async def _first_key(store: Store) -> str | None:
    """An org key, the first time that the platform starts."""
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


def _url_host(asked: str, bound: str) -> str:
    if asked in ("0.0.0.0", "::", ""):  # noqa: S104 - a comparison, nothing is bound here
        return "127.0.0.1"
    return f"[{bound}]" if ":" in bound else bound
