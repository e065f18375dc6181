"""The runner's process: the role, wired to its adapters. Imports no more than it needs."""

from __future__ import annotations

import asyncio

import structlog

from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.adapters.speech.suite import OfflineSpeech
from voicethere.cli.process import Process
from voicethere.cli.process_memory import give_back, hold_little
from voicethere.cli.running import Running
from voicethere.core.clock import SystemClock
from voicethere.core.ports import SpeechProviderError
from voicethere.roles.runner.runner import Runner
from voicethere.roles.runner.settings import RunnerSettings, changed
from voicethere.roles.runner.unpacked import UnpackedBundles
from voicethere.wire.relay import RunnerHello


def runner_settings(process: Process) -> RunnerSettings:
    """What the configuration says to the role.

    Raises:
        InvalidSetting: (a ValueError) a runner setting is wrong.
    """
    configuration = process.configuration
    return changed(
        RunnerSettings(
            runner_id=configuration.runner_id or process.instance,
            capacity=configuration.capacity,
            host_addresses=tuple(configuration.host_addresses) or None,
            drain_seconds=configuration.drain_seconds,
        ),
        [f"{name}={value}" for name, value in configuration.runner_settings.items()],
    )


async def run_runner(process: Process) -> None:
    """Host sessions until the end; returns once it does.

    At the end it drains: sessions go on for `drain_seconds` at most, unless somebody hurries.

    Raises:
        SandboxUnavailable: no confined process can be started here.
        OSError: the data directory cannot be used.
        ValueError: a setting is wrong.
    """
    hold_little()
    settings = runner_settings(process)
    running, layout = process.running, process.layout
    stack = running.stack
    # First: what an earlier runner could not queue must not wait for anything else.
    producer = await process.producer()
    bundles = process.engines.bundles()
    stack.push_async_callback(bundles.aclose)
    process.readiness.check("bundles", bundles.ping)
    sandbox = ZygoteSandbox(
        preload=["voicethere.agent.child"],
        scratch_root=layout.scratch,
        strict=process.configuration.strict_sandbox,
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
    unpacked = UnpackedBundles(bundles, layout.unpacked)
    unpacked.forget_unused()
    hosted: list[Runner] = []

    def hello() -> RunnerHello:
        nothing_yet = RunnerHello(runner_id=settings.runner_id, capacity=settings.capacity)
        return hosted[0].hello() if hosted else nothing_yet

    link = await process.engines.link(settings.runner_id, hello)
    stack.push_async_callback(link.aclose)
    process.readiness.state("relay", lambda: None if link.linked else "the relay does not answer")
    role = Runner(
        settings=settings,
        link=link,
        sandbox=sandbox,
        speech=speech,
        queue=producer.queue,
        bundles=unpacked,
        clock=SystemClock(),
    )
    hosted.append(role)
    if process.metrics is not None:
        from voicethere.cli.ops_metrics import measure_runner

        measure_runner(process.metrics, role.gauges)
    await running.role("runner's memory", give_back(lambda: role.gauges().hosted - role.gauges().sessions))
    await running.role("runner", _run(role, running), role.drain)


async def _run(role: Runner, running: Running) -> None:
    async def hurry() -> None:
        await running.hurried.wait()
        role.stop()

    hurrying = asyncio.create_task(hurry(), name="runner hurry")
    try:
        await role.run()
    finally:
        hurrying.cancel()
