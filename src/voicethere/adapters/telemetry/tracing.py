"""Spans by OpenTelemetry, exported by OTLP over HTTP. Imported only where an endpoint is configured."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from voicethere.core.tracing import Attribute, Span

EXPORT_SECONDS = 5
CLOSE_SECONDS = 3.0

_log = structlog.get_logger(__name__)


class OtelTracer:
    """Implements `voicethere.core.tracing.Tracer`. A collector that is away costs spans, nothing else."""

    def __init__(
        self,
        endpoint: str,
        *,
        role: str,
        instance: str,
        version: str,
        close_seconds: float = CLOSE_SECONDS,
    ) -> None:
        """`endpoint` is the collector's base address, such as http://collector:4318; `close_seconds` is how
        long `aclose` waits for it."""
        self._close_seconds = close_seconds
        self._provider = TracerProvider(
            resource=Resource.create(
                {
                    "service.name": f"voicethere-{role}",
                    "service.namespace": "voicethere",
                    "service.instance.id": instance,
                    "service.version": version,
                }
            ),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint.rstrip("/") + "/v1/traces", timeout=EXPORT_SECONDS)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("voicethere", version)
        self._propagator = TraceContextTextMapPropagator()

    @contextlib.contextmanager
    def span(self, name: str, /, *, parent: str | None = None, **attributes: Attribute) -> Iterator[Span]:
        """See the port."""
        context: Context | None = None
        if parent is not None:
            context = self._propagator.extract({"traceparent": parent})
        with self._tracer.start_as_current_span(
            name, context=context, attributes={_dotted(key): value for key, value in attributes.items()}
        ) as span:
            yield _OtelSpan(span)

    async def aclose(self) -> None:
        """Send what is left, for a moment at most."""
        loop = asyncio.get_running_loop()
        finished = asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # nobody waits any more, and the loop is closed
                loop.call_soon_threadsafe(finished.set)

        # A daemon: nothing of the interpreter's end waits for a collector that hangs.
        threading.Thread(target=shut_down, name="spans", daemon=True).start()
        try:
            async with asyncio.timeout(self._close_seconds):
                await finished.wait()
        except TimeoutError:
            _log.warning("spans_lost", reason="the collector did not take them in time")


class _OtelSpan:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def set(self, **attributes: Attribute) -> None:
        self._span.set_attributes({_dotted(key): value for key, value in attributes.items()})


def _dotted(name: str) -> str:
    return name.replace("__", ".")
