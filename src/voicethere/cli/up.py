"""`voicethere up`: the whole platform on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import msgspec

from voicethere.cli.logs import configure_logs
from voicethere.cli.stdin_end import when_stdin_closes


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path(".voicethere/data"),
    show_default=True,
    help="Where everything is kept.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one."
)
@click.option("--public-url", default=None, help="What clients see, where that is another address.")
@click.option(
    "--capacity", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Sessions at once."
)
@click.option(
    "--host-address", "host_addresses", multiple=True, help="An address to offer to clients; repeatable."
)
@click.option(
    "--strict-sandbox", is_flag=True, help="Refuse to run where a confinement mechanism is missing."
)
@click.option(
    "--max-idle-seconds",
    type=click.IntRange(30, 86_400),
    default=120,
    show_default=True,
    help="The most that a project may set as its idle limits.",
)
@click.option(
    "--runner-set",
    "runner_changes",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting of the runner, such as rejoin_seconds=10; repeatable.",
)
@click.option("--log-level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]), default="INFO")
@click.option(
    "--until-stdin-closes", is_flag=True, help="End when standard input does, as whoever starts it dies."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout once it serves.")
def up(
    data_dir: Path,
    host: str,
    port: int,
    public_url: str | None,
    capacity: int,
    host_addresses: tuple[str, ...],
    strict_sandbox: bool,
    max_idle_seconds: int,
    runner_changes: tuple[str, ...],
    log_level: str,
    until_stdin_closes: bool,
    as_json: bool,
) -> None:
    """Run the whole platform on this machine: all roles as one process tree. Ctrl-C ends everything."""
    from voicethere.cli.platform import PlatformBusy, PlatformSettings
    from voicethere.roles.runner.settings import InvalidSetting, RunnerSettings, changed

    settings = PlatformSettings(
        data_dir=data_dir,
        host=host,
        port=port,
        public_url=public_url,
        capacity=capacity,
        host_addresses=host_addresses,
        strict_sandbox=strict_sandbox,
        max_idle_seconds=max_idle_seconds,
        log_level=log_level,
        runner_changes=runner_changes,
    )
    try:
        changed(RunnerSettings(runner_id="checked"), runner_changes)
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        (data_dir / "logs").mkdir(parents=True, exist_ok=True, mode=0o700)
        configure_logs(level=log_level, file=data_dir / "logs" / "platform.log")
        problem = asyncio.run(_serve(settings, as_json, until_stdin_closes=until_stdin_closes))
    except InvalidSetting as invalid:
        raise click.UsageError(str(invalid)) from None
    except PlatformBusy as busy:
        raise click.ClickException(str(busy)) from None
    except TimeoutError:
        log = data_dir / "logs" / "runner.err"
        said = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
        raise click.ClickException(f"the runner did not start: {' '.join(said)} (its log: {log})") from None
    except OSError as error:
        raise click.ClickException(f"cannot serve on {host}:{port} from {data_dir}: {error}") from None
    if problem is not None:
        raise click.ClickException(f"{problem}; the log: {data_dir / 'logs' / 'platform.log'}")


async def _serve(settings: object, as_json: bool, *, until_stdin_closes: bool) -> str | None:
    from voicethere.cli.platform import PlatformSettings, start_platform

    assert isinstance(settings, PlatformSettings)
    async with start_platform(settings) as (running, serving):
        if as_json:
            sys.stdout.write(msgspec.json.encode(serving).decode() + "\n")
        else:
            click.echo(_greeting(serving.base_url, serving.api_key, serving.data_dir))
        sys.stdout.flush()
        if until_stdin_closes:
            await when_stdin_closes(running.stopped.set)
        problem = await running.until_stopped()
        if not as_json:
            click.echo("Ending …", err=True)
        return problem


def _greeting(base_url: str, api_key: str | None, data_dir: str) -> str:
    lines = [
        f"VoiceThere serves at {base_url}",
        f"  API        {base_url}/api/v1  (to browse: {base_url}/docs)",
        f"  sessions   {base_url}/v1/sessions",
        f"  data       {data_dir}",
    ]
    if api_key is None:
        lines.append("  key        as before (make another: voicethere api-keys create NAME)")
    else:
        lines += [
            f"  key        {api_key}",
            "             It is shown this once. Next, in another terminal:",
            f"             voicethere login --api-base {base_url} --api-key {api_key}",
        ]
    return "\n".join([*lines, "Ctrl-C ends it."])
