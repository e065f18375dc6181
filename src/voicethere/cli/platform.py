"""The embedded platform: control plane, session service and worker in one process, the runner in another."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from voicethere.cli import composition
from voicethere.cli.http_server import Listener, serve_http
from voicethere.cli.layout import DataLayout
from voicethere.cli.runner_process import RunnerProcess
from voicethere.cli.running import Running

_RUNNER_START_SECONDS = 30.0


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


@contextlib.asynccontextmanager
async def start_platform(settings: PlatformSettings) -> AsyncIterator[tuple[Running, Serving]]:
    """Start all roles and wait until the runner is linked; leaving ends everything in order.

    Raises:
        PlatformBusy: another platform holds the data directory.
        OSError: the port or the data directory cannot be used.
        TimeoutError: the runner did not start.
    """
    async with Running.start() as running:
        yield running, await _start(running, settings)


async def _start(running: Running, settings: PlatformSettings) -> Serving:
    layout = DataLayout(settings.data_dir)
    layout.prepare()
    _hold(running, layout)
    listener = Listener(running, settings.host, settings.port)
    store = await composition.open_store(running, layout)
    await composition.run_worker(running, layout, store)
    runner = RunnerProcess(
        layout,
        options=_runner_options(settings),
        leaving=running.leaving,
        died=lambda runner_id: service.runner_died(runner_id),
    )
    service = await composition.run_sessions(
        running, layout, store, public_url=settings.public_url, runner_silent=runner.hangs
    )
    routes = [
        composition.control_routes(running, layout, store, max_idle_seconds=settings.max_idle_seconds),
        composition.session_routes(service, store),
    ]
    await serve_http(running, composition.http_app(routes, signaling_of=service), listener)
    api_key = await composition.first_key(store)
    running.stack.push_async_callback(runner.stop)
    runner.start()
    await running.role("runner's keeper", runner.keep())
    async with asyncio.timeout(_RUNNER_START_SECONDS):
        await service.runner_linked()
    return Serving(
        base_url=settings.public_url or listener.url,
        api_key=api_key,
        data_dir=str(layout.root),
        runner_pid=runner.pid,
    )


def _hold(running: Running, layout: DataLayout) -> None:
    lock = running.stack.enter_context(layout.lock.open("a"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise PlatformBusy(
            f"another voicethere serves from {layout.root}; end it, or name another --data-dir"
        ) from error


def _runner_options(settings: PlatformSettings) -> list[str]:
    return [
        f"--capacity={settings.capacity}",
        f"--log-level={settings.log_level}",
        *(f"--host-address={address}" for address in settings.host_addresses),
        *(f"--set={change}" for change in settings.runner_changes),
        *(["--strict-sandbox"] if settings.strict_sandbox else []),
    ]
