"""Spans as a real collector receives them, and what a collector that is away costs."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys

import pytest

from tests.integration.serving.collector import collector
from voicethere.adapters.telemetry.tracing import OtelTracer

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def test_spans_arrive_with_what_was_said_of_them() -> None:
    with collector() as collected:
        tracer = OtelTracer(collected.endpoint, role="worker", instance="host-1", version="1.2")
        with tracer.span("commit batch", items=3) as outer:
            with tracer.span("inner"):
                pass
            outer.set(http__route="/v1/x")
        with tracer.span("GET request", parent=TRACEPARENT):
            pass
        with pytest.raises(RuntimeError), tracer.span("broken"):
            raise RuntimeError("it broke")
        await tracer.aclose()
        spans = {span.name: span for span in collected.spans}
    assert list(spans) == ["inner", "commit batch", "GET request", "broken"]
    outer_span = spans["commit batch"]
    assert outer_span.attributes == {"items": 3, "http.route": "/v1/x"}
    assert outer_span.resource["service.name"] == "voicethere-worker"
    assert outer_span.resource["service.instance.id"] == "host-1"
    assert outer_span.resource["service.version"] == "1.2"
    assert spans["inner"].trace_id == outer_span.trace_id
    assert spans["inner"].parent_id != ""
    assert outer_span.parent_id == ""
    assert spans["GET request"].trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert spans["GET request"].parent_id == "b7ad6b7169203331"


async def test_a_collector_that_hangs_holds_nobody_up(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, logger="opentelemetry")
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        tracer = OtelTracer(
            f"http://127.0.0.1:{deaf.getsockname()[1]}",
            role="worker",
            instance="i",
            version="1",
            close_seconds=0.2,
        )
        with tracer.span("lost"):
            pass
        async with asyncio.timeout(5):
            await tracer.aclose()


LIGHT = """
import sys
import voicethere.cli.serve, voicethere.cli.process, voicethere.cli.{module}
loaded = sorted(name for name in {heavy} if name in sys.modules)
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("composition", ["opentelemetry"]),
        (
            "runner_role",
            ["opentelemetry", "sqlalchemy", "litestar", "uvicorn", "prometheus_client", "redis", "boto3"],
        ),
    ],
)
def test_nothing_is_loaded_that_was_not_asked_for(module: str, heavy: list[str]) -> None:
    subprocess.run([sys.executable, "-c", LIGHT.format(module=module, heavy=heavy)], check=True, timeout=60)
