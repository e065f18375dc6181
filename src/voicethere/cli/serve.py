"""`voicethere serve control|sessions|gateway|worker|runner`: one role as a process of its own.

Without engines all of them work on one data directory of one machine. `voicethere up` starts its runner this
way too; then it also ends when its standard input does: no runner outlives a platform that was killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec

from voicethere.cli.configuration import Configuration
from voicethere.cli.configuration.check import check
from voicethere.cli.configuration.options import configuration_of, configured
from voicethere.cli.configuration.settings import DEFAULT_PORTS
from voicethere.cli.instance import new_instance
from voicethere.cli.logs import configure_logs
from voicethere.cli.process_memory import set_aside
from voicethere.cli.stdin_end import when_stdin_closes
from voicethere.core.ports import SandboxUnavailable

if TYPE_CHECKING:
    from voicethere.cli.process import Process

F = TypeVar("F", bound=Callable[..., Any])


class RoleServing(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints once a role serves. `api_key` is the first org key, shown once, by `control`.

    `ops_url` is where `/healthz`, `/readyz` and `/metrics` are.
    """

    role: str
    pid: int
    instance: str
    base_url: str | None = None
    ops_url: str | None = None
    api_key: str | None = None


class _Started(msgspec.Struct, frozen=True):
    base_url: str | None = None
    api_key: str | None = None


def _every_role(command: F) -> F:
    """The options that are about this one start, not about the platform."""
    for option in (
        click.option("--until-stdin-closes", is_flag=True, help="End when standard input does."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout once it serves."),
    ):
        command = option(command)
    return command


@click.group()
def serve() -> None:
    """Run one role of the platform as a process of its own.

    Each setting can be given as an option, as a variable (VOICETHERE_ and its name), or in a file (--config).
    """


serve.add_command(check)


@serve.command()
@configured("control")
@_every_role
def control(config_file: Path | None, as_json: bool, until_stdin_closes: bool, **settings: Any) -> None:
    """The control plane: projects, builds, deployments, settings, keys, session errors."""

    async def start(process: Process) -> _Started:
        from voicethere.cli import composition
        from voicethere.cli.http_server import Listener

        configuration = process.configuration
        listener = Listener(process.running, configuration.host, _port(process))
        store = await process.store()
        await composition.serve_routes(process, [composition.control_routes(process, store)], listener)
        key = await process.engines.while_starting(lambda: composition.first_key(store))
        return _Started(base_url=configuration.public_url or listener.url, api_key=key)

    _serve("control", start, config_file, settings, as_json=as_json, until_stdin_closes=until_stdin_closes)


@serve.command()
@configured("sessions")
@_every_role
def sessions(config_file: Path | None, as_json: bool, until_stdin_closes: bool, **settings: Any) -> None:
    """The session service: the session API and signaling; chat gateway and worker, unless others are."""

    async def start(process: Process) -> _Started:
        from voicethere.cli import composition
        from voicethere.cli.http_server import Listener

        configuration = process.configuration
        listener = Listener(process.running, configuration.host, _port(process))
        store = await process.store()
        if not configuration.no_worker:
            await composition.run_worker(process, store)
        hub = await composition.open_relay(process)
        gateway = None
        if configuration.no_chat:
            service = await composition.run_sessions(process, store, hub)
            routes = [composition.session_routes(service, store)]
        else:
            relay, chats_relay = composition.share_relay(process, hub)
            service = await composition.run_sessions(process, store, relay)
            gateway = await composition.run_gateway(process, store, chats_relay)
            routes = [composition.session_routes(service, store), composition.chat_routes(gateway)]
        await composition.serve_routes(process, routes, listener, signaling_of=service, chats_of=gateway)
        return _Started(base_url=configuration.public_url or listener.url)

    _serve("sessions", start, config_file, settings, as_json=as_json, until_stdin_closes=until_stdin_closes)


@serve.command()
@configured("gateway")
@_every_role
def gateway(config_file: Path | None, as_json: bool, until_stdin_closes: bool, **settings: Any) -> None:
    """The chat gateway alone: conversations with agents, for chat clients."""

    async def start(process: Process) -> _Started:
        from voicethere.cli import composition
        from voicethere.cli.http_server import Listener

        configuration = process.configuration
        listener = Listener(process.running, configuration.host, _port(process))
        store = await process.store()
        hub = await composition.open_relay(process)
        gateway = await composition.run_gateway(process, store, hub)
        await composition.serve_routes(
            process, [composition.chat_routes(gateway)], listener, chats_of=gateway
        )
        return _Started(base_url=configuration.public_url or listener.url)

    _serve("gateway", start, config_file, settings, as_json=as_json, until_stdin_closes=until_stdin_closes)


@serve.command()
@configured("worker")
@_every_role
def worker(config_file: Path | None, as_json: bool, until_stdin_closes: bool, **settings: Any) -> None:
    """The worker alone: moves errors from the queue into the database, and deletes what is past its time."""

    async def start(process: Process) -> _Started:
        from voicethere.cli import composition

        await composition.run_worker(process, await process.store())
        return _Started()

    _serve("worker", start, config_file, settings, as_json=as_json, until_stdin_closes=until_stdin_closes)


@serve.command()
@configured("runner")
@_every_role
def runner(config_file: Path | None, as_json: bool, until_stdin_closes: bool, **settings: Any) -> None:
    """Host sessions: the clients' connections, speech, and the agents' processes."""

    async def start(process: Process) -> _Started:
        from voicethere.cli.runner_role import run_runner

        await run_runner(process)
        return _Started()

    _serve("runner", start, config_file, settings, as_json=as_json, until_stdin_closes=until_stdin_closes)


def _port(process: Process) -> int:
    port = process.configuration.port
    return DEFAULT_PORTS[process.role] if port is None else port


def _serve(
    role: str,
    start: Callable[[Process], Awaitable[_Started]],
    config_file: Path | None,
    settings: dict[str, Any],
    *,
    as_json: bool,
    until_stdin_closes: bool,
) -> None:
    """Run a role to its end: quietly where it was asked to end, with one line otherwise."""
    configuration = configuration_of(role, config_file, settings).values
    if role == "gateway" and not configuration.distributed:
        raise click.UsageError(
            "a gateway of its own needs engines that it shares with the other roles: set redis_url and "
            "database_url. Without them, `voicethere serve sessions` (or `voicethere up`) serves chats, too."
        )
    instance = new_instance()
    try:
        configure_logs(
            level=configuration.log_level, file=configuration.log_file, role=role, instance=instance
        )
        problem = asyncio.run(
            _until_the_end(
                role,
                start,
                configuration,
                instance,
                as_json=as_json,
                until_stdin_closes=until_stdin_closes,
            )
        )
    except (OSError, ValueError, SandboxUnavailable) as error:
        raise click.ClickException(f"cannot serve: {error}") from None
    if problem is not None:
        raise click.ClickException(problem)


async def _until_the_end(
    role: str,
    start: Callable[[Process], Awaitable[_Started]],
    configuration: Configuration,
    instance: str,
    *,
    as_json: bool,
    until_stdin_closes: bool,
) -> str | None:
    from voicethere.cli.process import Process
    from voicethere.cli.running import Stopped

    async with Process.start(role, configuration, instance) as process:
        running = process.running
        if until_stdin_closes:
            await when_stdin_closes(running.stop_at_once)

        async def starting() -> _Started:
            return await start(process)

        try:
            started = await running.unless_stopped(starting())
        except Stopped:
            return running.problem
        process.readiness.served()
        set_aside()
        _say(
            RoleServing(
                role=role,
                pid=os.getpid(),
                instance=instance,
                base_url=started.base_url,
                ops_url=process.ops_url,
                api_key=started.api_key,
            ),
            as_json,
        )
        return await running.until_stopped(linger_seconds=configuration.unready_seconds)


def _say(serving: RoleServing, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(serving).decode() + "\n")
    else:
        where = "" if serving.base_url is None else f" at {serving.base_url}"
        click.echo(f"{serving.role} serves{where} (pid {serving.pid})")
        if serving.ops_url is not None:
            click.echo(f"  ops  {serving.ops_url}/readyz, /healthz, /metrics")
        if serving.api_key is not None:
            click.echo(f"  key  {serving.api_key}  (shown this once)")
    sys.stdout.flush()
