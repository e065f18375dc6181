"""What every process that serves has: its configuration, its engines, and how it can be looked at."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import structlog

from voicethere import __version__
from voicethere.cli.configuration import Configuration
from voicethere.cli.engines import Engines
from voicethere.cli.layout import DataLayout
from voicethere.cli.ops_readiness import Readiness
from voicethere.cli.running import Running
from voicethere.core.ports import QueueUnavailable
from voicethere.core.tracing import NO_TRACER, Tracer

if TYPE_CHECKING:
    from voicethere.adapters.store import Store
    from voicethere.adapters.telemetry.metrics import Metrics
    from voicethere.cli.producer_queue import Producer

_log = structlog.get_logger(__name__)


class Process:
    """One process of the platform. `metrics` is None where nobody can scrape them: then nothing is counted.

    Example:
        >>> async with Process.start("worker", configuration, "host-1-ab") as process:
        ...     await run_worker(process, await process.store())
        ...     await process.running.until_stopped()
    """

    def __init__(self, role: str, configuration: Configuration, instance: str, running: Running) -> None:
        self.role = role
        self.configuration = configuration
        self.instance = instance
        self.running = running
        self.layout = DataLayout(configuration.data_dir)
        self.engines = Engines(configuration, self.layout, instance)
        self.readiness = Readiness(running, role=role, instance=instance)
        self.metrics: Metrics | None = None
        self.tracer: Tracer = NO_TRACER
        self.ops_url: str | None = None

    @classmethod
    @contextlib.asynccontextmanager
    async def start(cls, role: str, configuration: Configuration, instance: str) -> AsyncIterator[Process]:
        """Nothing of the role runs yet, but its ops endpoint does.

        Raises:
            OSError: the data directory or the ops port cannot be used.
        """
        async with Running.start() as running:
            process = cls(role, configuration, instance, running)
            process.layout.prepare(role, distributed=configuration.distributed)
            await process._open_telemetry()
            yield process
            if running.stopped.is_set():
                _log.info("ending", hurried=running.hurried.is_set())

    async def _open_telemetry(self) -> None:
        configuration = self.configuration
        if configuration.otel_endpoint is not None:
            from voicethere.adapters.telemetry.tracing import OtelTracer

            tracer = OtelTracer(
                configuration.otel_endpoint, role=self.role, instance=self.instance, version=__version__
            )
            self.running.stack.push_async_callback(tracer.aclose)
            self.tracer = tracer
        if configuration.ops_port is not None:
            from voicethere.adapters.telemetry.loop_lag import LoopLag
            from voicethere.adapters.telemetry.metrics import Metrics
            from voicethere.cli.http_server import Listener
            from voicethere.cli.ops_endpoint import serve_ops
            from voicethere.cli.ops_metrics import measure_process

            self.metrics, lag = Metrics(), LoopLag()
            listener = Listener(self.running, configuration.ops_host, configuration.ops_port)
            self.ops_url = listener.url
            observe = measure_process(self.metrics, lag, role=self.role)
            await self.running.role("measure of the loop's lag", lag.measure(observe))
            await serve_ops(self.running, listener, readiness=self.readiness, metrics=self.metrics, lag=lag)

    async def store(self) -> Store:
        """The database, open until the end.

        Raises:
            StoreUnavailable: see `Engines.store`.
        """
        from voicethere.adapters.store import StoreUnavailable

        self.readiness.missing = "the database has not answered yet"
        try:
            store = await self.engines.store()
        except StoreUnavailable as problem:
            raise OSError(f"the database cannot be used: {problem}") from None
        self.readiness.missing = "the role is starting"
        self.running.stack.push_async_callback(store.aclose)
        self.readiness.check("database", store.ping)
        return store

    async def producer(self) -> Producer:
        """The queue for what this process has to say, open until the end."""
        layout = self.layout
        producer = self.engines.producer(layout.spool if self.role == "runner" else layout.sessions_spool)
        self.running.stack.push_async_callback(producer.aclose)
        await producer.open()
        if self.metrics is not None:
            from voicethere.cli.ops_metrics import measure_producer

            measure_producer(self.metrics, producer)
        self.readiness.check("queue", functools.partial(_depth, producer))
        return producer


async def _depth(producer: Producer) -> None:
    try:
        await producer.engine.depth()
    except QueueUnavailable as problem:
        waiting = producer.spool.spooled
        raise QueueUnavailable(f"{problem} ({waiting} items wait in the spool)") from None
