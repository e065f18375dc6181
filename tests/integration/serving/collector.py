"""A collector of OpenTelemetry traces: takes OTLP over HTTP, decodes the protobuf, keeps the spans."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


class Collected:
    """One span; `attributes` and `resource` as plain values."""

    def __init__(self, span: Any, resource: Any) -> None:
        self.name: str = span.name
        self.trace_id: str = span.trace_id.hex()
        self.parent_id: str = span.parent_span_id.hex()
        self.attributes = _plain(span.attributes)
        self.resource = _plain(resource.attributes)


class Collector:
    """`endpoint` is what a process is configured with."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.spans: list[Collected] = []
        self.changed = threading.Condition()

    def wait_for(self, name: str, *, service: str, seconds: float = 30.0) -> Collected:
        """The first span of that name from that service."""

        def found() -> Collected | None:
            return next(
                (one for one in self.spans if (one.name, one.resource["service.name"]) == (name, service)),
                None,
            )

        with self.changed:
            assert self.changed.wait_for(lambda: found() is not None, seconds), (
                f"no span {name!r} of {service}"
            )
            span = found()
        assert span is not None
        return span


@contextlib.contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a free port."""
    kept: list[Collector] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            assert self.headers["content-type"] == "application/x-protobuf"
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            with kept[0].changed:
                kept[0].spans += [
                    Collected(span, group.resource)
                    for group in request.resource_spans
                    for scope in group.scope_spans
                    for span in scope.spans
                ]
                kept[0].changed.notify_all()
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.append(Collector(f"http://127.0.0.1:{server.server_address[1]}"))
        thread = threading.Thread(target=server.serve_forever, name="collector", daemon=True)
        thread.start()
        yield kept[0]
        server.shutdown()
        thread.join()


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
