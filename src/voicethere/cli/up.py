"""`voicethere up`: the whole platform on this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from voicethere.cli.configuration import Configuration
from voicethere.cli.configuration.options import configuration_of, configured
from voicethere.cli.instance import new_instance
from voicethere.cli.logs import configure_logs
from voicethere.cli.stdin_end import when_stdin_closes


@click.command()
@configured("up", flags={"runner_settings": "--runner-set"})
@click.option(
    "--until-stdin-closes", is_flag=True, help="End when standard input does, as whoever starts it dies."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout once it serves.")
def up(config_file: Path | None, until_stdin_closes: bool, as_json: bool, **settings: Any) -> None:
    """Run the whole platform on this machine: all roles as one process tree. Ctrl-C ends everything."""
    from voicethere.cli.platform import PlatformBusy

    configuration = configuration_of("up", config_file, settings).values
    data_dir, instance = configuration.data_dir, new_instance()
    logs = data_dir / "logs"
    try:
        data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        configure_logs(
            level=configuration.log_level, file=logs / "platform.log", role="up", instance=instance
        )
        problem = asyncio.run(_serve(configuration, instance, as_json, until_stdin_closes=until_stdin_closes))
    except PlatformBusy as busy:
        raise click.ClickException(str(busy)) from None
    except TimeoutError:
        log = logs / "runner.err"
        said = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
        raise click.ClickException(f"the runner did not start: {' '.join(said)} (its log: {log})") from None
    except OSError as error:
        raise click.ClickException(f"cannot serve from {data_dir}: {error}") from None
    if problem is not None:
        raise click.ClickException(f"{problem}; the log: {logs / 'platform.log'}")


async def _serve(
    configuration: Configuration, instance: str, as_json: bool, *, until_stdin_closes: bool
) -> str | None:
    from voicethere.cli.platform import start_platform
    from voicethere.cli.running import Stopped

    try:
        async with start_platform(configuration, instance) as (running, serving):
            if as_json:
                sys.stdout.write(msgspec.json.encode(serving).decode() + "\n")
            else:
                click.echo(_greeting(serving.base_url, serving.api_key, serving.data_dir))
            sys.stdout.flush()
            if until_stdin_closes:
                await when_stdin_closes(running.stop_at_once)
            problem = await running.until_stopped()
            if not as_json:
                click.echo("Ending …", err=True)
            return problem
    except Stopped:
        return None


def _greeting(base_url: str, api_key: str | None, data_dir: str) -> str:
    lines = [
        f"VoiceThere serves at {base_url}",
        f"  API        {base_url}/api/v1  (to browse: {base_url}/docs)",
        f"  sessions   {base_url}/v1/sessions",
        f"  chats      {base_url}/c/CLIENT_KEY",
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
