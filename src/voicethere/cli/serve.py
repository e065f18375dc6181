"""`voicethere serve runner`: one role as a process of its own.

`voicethere up` starts the runner this way too; then it also ends when its standard input does, so that no
runner outlives a platform that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from voicethere.cli.layout import DataLayout
from voicethere.cli.logs import configure_logs


@click.group()
def serve() -> None:
    """Run one role of the platform as a process of its own."""


@serve.command()
@click.option(
    "--data-dir", type=click.Path(path_type=Path), default=Path(".voicethere/data"), show_default=True
)
@click.option("--runner-id", default=lambda: f"runner-{os.getpid()}", help="A name that no other runner has.")
@click.option("--capacity", type=click.IntRange(1, 10_000), default=64, show_default=True)
@click.option(
    "--host-address", "host_addresses", multiple=True, help="An address to offer to clients; repeatable."
)
@click.option(
    "--strict-sandbox", is_flag=True, help="Refuse to run where a confinement mechanism is missing."
)
@click.option("--log-level", default="INFO", show_default=True)
@click.option("--log-file", type=click.Path(path_type=Path), default=None)
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
    log_level: str,
    log_file: Path | None,
    changes: tuple[str, ...],
    until_stdin_closes: bool,
) -> None:
    """Host sessions: the clients' connections, speech, and the agents' processes."""
    configure_logs(level=log_level, file=log_file)
    asyncio.run(
        _run(
            DataLayout(data_dir),
            runner_id=runner_id,
            capacity=capacity,
            host_addresses=host_addresses or None,
            strict_sandbox=strict_sandbox,
            changes=changes,
            until_stdin_closes=until_stdin_closes,
        )
    )


async def _run(
    layout: DataLayout,
    *,
    runner_id: str,
    capacity: int,
    host_addresses: tuple[str, ...] | None,
    strict_sandbox: bool,
    changes: tuple[str, ...],
    until_stdin_closes: bool,
) -> None:
    from voicethere.adapters.bundles import DirectoryBundleStore
    from voicethere.adapters.queue import EmbeddedErrorQueue
    from voicethere.adapters.relay.embedded import EmbeddedRunnerLink
    from voicethere.adapters.sandbox import ZygoteSandbox
    from voicethere.adapters.speech.suite import OfflineSpeech
    from voicethere.core.clock import SystemClock
    from voicethere.core.ports import SpeechProviderError
    from voicethere.roles.runner.runner import Runner
    from voicethere.roles.runner.settings import RunnerSettings, changed
    from voicethere.roles.runner.unpacked import UnpackedBundles
    from voicethere.wire.relay import RunnerHello

    settings = changed(
        RunnerSettings(runner_id=runner_id, capacity=capacity, host_addresses=host_addresses), changes
    )
    layout.prepare()
    async with contextlib.AsyncExitStack() as stack:
        sandbox = ZygoteSandbox(
            preload=["voicethere.agent.child"], scratch_root=layout.scratch, strict=strict_sandbox
        )
        stack.push_async_callback(sandbox.aclose)
        await sandbox.open()
        speech = OfflineSpeech()
        stack.push_async_callback(speech.aclose)
        try:
            await speech.open()
        except SpeechProviderError as error:
            # Sessions without audio need none of it; those with audio will hear of it when it is needed.
            structlog.get_logger(__name__).error("speech_not_ready", problem=str(error))
        queue = EmbeddedErrorQueue(layout.queue)
        stack.push_async_callback(queue.aclose)
        hosted: list[Runner] = []
        link = await EmbeddedRunnerLink.start(
            layout.relay,
            hello=lambda: RunnerHello(
                runner_id=runner_id, capacity=capacity, sessions=hosted[0].hosted() if hosted else []
            ),
        )
        stack.push_async_callback(link.aclose)
        role = Runner(
            settings=settings,
            link=link,
            sandbox=sandbox,
            speech=speech,
            queue=queue,
            bundles=UnpackedBundles(DirectoryBundleStore(layout.bundles), layout.unpacked),
            clock=SystemClock(),
        )
        hosted.append(role)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, role.stop)
        if until_stdin_closes:
            await loop.connect_read_pipe(lambda: _EndWatch(role.stop), sys.stdin.buffer)
        await role.run()


class _EndWatch(asyncio.Protocol):
    """Calls back when standard input closes."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()
