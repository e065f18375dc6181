"""The runner's process: the role, wired to the adapters of one machine. Imports no more than it needs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

import structlog

from voicethere.adapters.bundles import DirectoryBundleStore
from voicethere.adapters.relay.embedded import EmbeddedRunnerLink
from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.adapters.speech.suite import OfflineSpeech
from voicethere.cli.layout import DataLayout
from voicethere.cli.producer_queue import producer_queue
from voicethere.cli.stdin_end import when_stdin_closes
from voicethere.core.clock import SystemClock
from voicethere.core.ports import SpeechProviderError
from voicethere.roles.runner.runner import Runner
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.wire.relay import RunnerHello


async def run_runner(
    layout: DataLayout,
    settings: RunnerSettings,
    *,
    strict_sandbox: bool,
    until_stdin_closes: bool,
    serving: Callable[[], None],
) -> None:
    """Host sessions until SIGTERM or SIGINT (or the end of standard input); `serving` is called once it does.

    Raises:
        SandboxUnavailable: no confined process can be started here.
        OSError: the data directory cannot be used.
    """
    layout.prepare()
    async with contextlib.AsyncExitStack() as stack:
        queue = producer_queue(layout, layout.spool)
        stack.push_async_callback(queue.aclose)
        await queue.open()  # first: what an earlier runner could not queue must not wait for anything else
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
        hosted: list[Runner] = []
        link = await EmbeddedRunnerLink.start(
            layout.relay,
            hello=lambda: RunnerHello(
                runner_id=settings.runner_id,
                capacity=settings.capacity,
                sessions=hosted[0].hosted() if hosted else [],
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
            await when_stdin_closes(role.stop)
        serving()
        await role.run()
