"""The embedded platform: control plane, session service and worker in one process, the runner in another."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator

import msgspec

from voicethere.cli import composition
from voicethere.cli.configuration import Configuration
from voicethere.cli.configuration.settings import DEFAULT_PORTS
from voicethere.cli.http_server import Listener
from voicethere.cli.process import Process
from voicethere.cli.process_memory import set_aside
from voicethere.cli.runner_process import RunnerProcess
from voicethere.cli.running import Running

_RUNNER_START_SECONDS = 30.0


class PlatformBusy(Exception):
    """Another platform serves from this data directory."""


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What is being served. `api_key` is the first org key; None after the first start."""

    base_url: str
    api_key: str | None
    data_dir: str
    runner_pid: int
    ops_url: str | None = None


@contextlib.asynccontextmanager
async def start_platform(
    configuration: Configuration, instance: str
) -> AsyncIterator[tuple[Running, Serving]]:
    """Start all roles and wait until the runner is linked; leaving ends everything in order.

    Raises:
        PlatformBusy: another platform holds the data directory.
        OSError: the port or the data directory cannot be used.
        TimeoutError: the runner did not start.
        Stopped: somebody asked for the end before that.
    """
    async with Process.start("up", configuration, instance) as process:
        serving = await process.running.unless_stopped(_start(process))
        process.readiness.served()
        yield process.running, serving


async def _start(process: Process) -> Serving:
    configuration, running = process.configuration, process.running
    _hold(process)
    port = DEFAULT_PORTS["up"] if configuration.port is None else configuration.port
    listener = Listener(running, configuration.host, port)
    store = await process.store()
    await composition.run_worker(process, store)
    runner = RunnerProcess(
        process.layout,
        options=_runner_options(configuration),
        leaving=running.leaving,
        hurried=running.hurried,
        drain_seconds=configuration.drain_seconds,
        died=lambda runner_id: service.runner_died(runner_id),
    )
    relay, chats_relay = composition.share_relay(process, await composition.open_relay(process))
    service = await composition.run_sessions(process, store, relay, runner_silent=runner.hangs)
    gateway = await composition.run_gateway(process, store, chats_relay)
    routes = [
        composition.control_routes(process, store),
        composition.session_routes(service, store),
        composition.chat_routes(gateway),
    ]
    await composition.serve_routes(process, routes, listener, signaling_of=service, chats_of=gateway)
    api_key = await composition.first_key(store)
    running.stack.push_async_callback(runner.stop)
    runner.start()
    await running.role("runner's keeper", runner.keep())
    async with asyncio.timeout(_RUNNER_START_SECONDS):
        await service.runner_linked()
    set_aside()
    return Serving(
        base_url=configuration.public_url or listener.url,
        api_key=api_key,
        data_dir=str(process.layout.root),
        runner_pid=runner.pid,
        ops_url=process.ops_url,
    )


def _hold(process: Process) -> None:
    lock = process.running.stack.enter_context(process.layout.lock.open("a"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise PlatformBusy(
            f"another voicethere serves from {process.layout.root}; end it, or name another --data-dir"
        ) from error


def _runner_options(configuration: Configuration) -> list[str]:
    changes = configuration.runner_settings
    endpoint = configuration.otel_endpoint
    return [
        f"--capacity={configuration.capacity}",
        f"--log-level={configuration.log_level}",
        f"--drain-seconds={configuration.drain_seconds:g}",
        *(f"--host-address={address}" for address in configuration.host_addresses),
        *(f"--set={name}={msgspec.json.encode(value).decode()}" for name, value in changes.items()),
        *(["--strict-sandbox"] if configuration.strict_sandbox else []),
        *([f"--otel-endpoint={endpoint}"] if endpoint is not None else []),
    ]
