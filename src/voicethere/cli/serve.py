"""`voicethere serve control|sessions|worker|runner`: one role as a process of its own.

All of them work on one data directory. `voicethere up` starts its runner this way too; then it also ends when
its standard input does, so that no runner outlives a platform that was killed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from voicethere.cli.layout import DataLayout
from voicethere.cli.logs import configure_logs

F = TypeVar("F", bound=Callable[..., Any])


class RoleServing(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints once a role serves. `api_key` is the first org key, shown once, by `control`."""

    role: str
    pid: int
    base_url: str | None = None
    api_key: str | None = None


def _every_role(command: F) -> F:
    """The options that all roles take."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout once it serves."),
        click.option("--log-file", type=click.Path(path_type=Path), default=None, help="Default: stderr."),
        click.option("--log-level", default="INFO", show_default=True),
        click.option(
            "--data-dir",
            type=click.Path(path_type=Path),
            default=Path(".voicethere/data"),
            show_default=True,
            help="The same for all roles.",
        ),
    ):
        command = option(command)
    return command


def _over_http(port: int) -> Callable[[F], F]:
    """The options of a role that serves HTTP."""

    def add(command: F) -> F:
        for option in (
            click.option(
                "--public-url", default=None, help="What clients see, where that is another address."
            ),
            click.option(
                "--port",
                type=click.IntRange(0, 65535),
                default=port,
                show_default=True,
                help="0 takes a free one.",
            ),
            click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on."),
        ):
            command = option(command)
        return command

    return add


@click.group()
def serve() -> None:
    """Run one role of the platform as a process of its own."""


@serve.command()
@_every_role
@_over_http(8080)
@click.option("--max-idle-seconds", type=click.IntRange(30, 86_400), default=120, show_default=True)
def control(
    data_dir: Path,
    host: str,
    port: int,
    public_url: str | None,
    max_idle_seconds: int,
    log_level: str,
    log_file: Path | None,
    as_json: bool,
) -> None:
    """The control plane: projects, builds, deployments, settings, keys, session errors."""

    async def work() -> str | None:
        from voicethere.cli import composition
        from voicethere.cli.http_server import Listener, serve_http
        from voicethere.cli.running import Running

        layout = _prepared(data_dir)
        async with Running.start() as running:
            listener = Listener(running, host, port)
            store = await composition.open_store(running, layout)
            routes = composition.control_routes(running, layout, store, max_idle_seconds=max_idle_seconds)
            await serve_http(running, composition.http_app([routes]), listener)
            key = await composition.first_key(store)
            _say(
                RoleServing(
                    role="control", pid=os.getpid(), base_url=public_url or listener.url, api_key=key
                ),
                as_json,
            )
            return await running.until_stopped()

    _serve(work(), level=log_level, file=log_file)


@serve.command()
@_every_role
@_over_http(8081)
@click.option("--no-worker", is_flag=True, help="Leave storing errors to `serve worker`.")
def sessions(
    data_dir: Path,
    host: str,
    port: int,
    public_url: str | None,
    no_worker: bool,
    log_level: str,
    log_file: Path | None,
    as_json: bool,
) -> None:
    """The session service: the session API, signaling, and the worker that stores errors."""

    async def work() -> str | None:
        from voicethere.cli import composition
        from voicethere.cli.http_server import Listener, serve_http
        from voicethere.cli.running import Running

        layout = _prepared(data_dir)
        async with Running.start() as running:
            listener = Listener(running, host, port)
            store = await composition.open_store(running, layout)
            if not no_worker:
                await composition.run_worker(running, layout, store)
            service = await composition.run_sessions(running, layout, store, public_url=public_url)
            routes = composition.session_routes(service, store)
            await serve_http(running, composition.http_app([routes], signaling_of=service), listener)
            _say(RoleServing(role="sessions", pid=os.getpid(), base_url=public_url or listener.url), as_json)
            return await running.until_stopped()

    _serve(work(), level=log_level, file=log_file)


@serve.command()
@_every_role
def worker(data_dir: Path, log_level: str, log_file: Path | None, as_json: bool) -> None:
    """The worker alone: moves errors from the queue into the database."""

    async def work() -> str | None:
        from voicethere.cli import composition
        from voicethere.cli.running import Running

        layout = _prepared(data_dir)
        async with Running.start() as running:
            store = await composition.open_store(running, layout)
            await composition.run_worker(running, layout, store)
            _say(RoleServing(role="worker", pid=os.getpid()), as_json)
            return await running.until_stopped()

    _serve(work(), level=log_level, file=log_file)


@serve.command()
@_every_role
@click.option("--runner-id", default=lambda: f"runner-{os.getpid()}", help="A name that no other runner has.")
@click.option("--capacity", type=click.IntRange(1, 10_000), default=64, show_default=True)
@click.option(
    "--host-address", "host_addresses", multiple=True, help="An address to offer to clients; repeatable."
)
@click.option(
    "--strict-sandbox", is_flag=True, help="Refuse to run where a confinement mechanism is missing."
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="A runner setting, such as rejoin_seconds=10.",
)
@click.option("--until-stdin-closes", is_flag=True, help="End when standard input does.")
def runner(
    data_dir: Path,
    runner_id: str,
    capacity: int,
    host_addresses: tuple[str, ...],
    strict_sandbox: bool,
    changes: tuple[str, ...],
    until_stdin_closes: bool,
    log_level: str,
    log_file: Path | None,
    as_json: bool,
) -> None:
    """Host sessions: the clients' connections, speech, and the agents' processes."""
    from voicethere.roles.runner.settings import InvalidSetting, RunnerSettings, changed

    try:
        settings = changed(
            RunnerSettings(runner_id=runner_id, capacity=capacity, host_addresses=host_addresses or None),
            changes,
        )
    except InvalidSetting as invalid:
        raise click.UsageError(str(invalid)) from None

    async def work() -> None:
        from voicethere.cli.runner_role import run_runner

        await run_runner(
            _prepared(data_dir),
            settings,
            strict_sandbox=strict_sandbox,
            until_stdin_closes=until_stdin_closes,
            serving=lambda: _say(RoleServing(role="runner", pid=os.getpid()), as_json),
        )

    _serve(work(), level=log_level, file=log_file)


def _prepared(data_dir: Path) -> DataLayout:
    layout = DataLayout(data_dir)
    layout.prepare()
    return layout


def _serve(work: Coroutine[Any, Any, str | None], *, level: str, file: Path | None) -> None:
    """Run a role to its end: quietly where it was asked to end, with one line otherwise."""
    try:
        configure_logs(level=level, file=file)
        problem = asyncio.run(work)
    except OSError as error:
        raise click.ClickException(f"cannot serve: {error}") from None
    if problem is not None:
        raise click.ClickException(problem)


def _say(serving: RoleServing, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(serving).decode() + "\n")
    else:
        where = "" if serving.base_url is None else f" at {serving.base_url}"
        click.echo(f"{serving.role} serves{where} (pid {serving.pid})")
        if serving.api_key is not None:
            click.echo(f"  key  {serving.api_key}  (shown this once)")
    sys.stdout.flush()
