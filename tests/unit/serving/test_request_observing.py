"""What an HTTP app tells of its requests: routes, never what a caller wrote; a span of each; ids in logs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import httpx
import structlog
from litestar import get, route
from litestar.params import FromPath
from structlog.testing import capture_logs

from voicethere.adapters.http.app import build_app
from voicethere.adapters.http.request_ids import SeenRequest
from voicethere.core.tracing import Attribute, Span

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@get("/things/{session_id:str}")
async def thing(session_id: FromPath[str]) -> dict[str, str]:
    structlog.get_logger("here").info("looked", **structlog.contextvars.get_contextvars())
    return {"id": session_id}


@route("/things", http_method=["POST"])
async def things() -> None:
    raise RuntimeError("broken")


class Spans:
    """A tracer that keeps what it is told."""

    def __init__(self) -> None:
        self.ended: list[tuple[str, str | None, dict[str, Attribute]]] = []

    @contextlib.contextmanager
    def span(self, name: str, /, *, parent: str | None = None, **attributes: Attribute) -> Iterator[Span]:
        known = dict(attributes)

        class _Span:
            def set(self, **more: Attribute) -> None:
                known.update(more)

        yield _Span()
        self.ended.append((name, parent, known))


def app_of(seen: list[SeenRequest], tracer: Spans) -> httpx.AsyncClient:
    app = build_app([thing, things], title="t", version="1", observe=seen.append, tracer=tracer)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


async def test_requests_are_seen_by_their_route() -> None:
    seen: list[SeenRequest] = []
    tracer = Spans()
    async with app_of(seen, tracer) as client:
        await client.get("/things/s-1?token=hidden", headers={"traceparent": TRACEPARENT})
        await client.get("/nothing/here")
        await client.post("/things")
        await client.request("BREW", "/things")
    assert [(one.method, one.route, one.status) for one in seen] == [
        ("GET", "/things/{session_id}", 200),
        ("GET", "none", 404),
        ("POST", "/things", 500),
        ("OTHER", "none", 405),
    ]
    name, parent, attributes = tracer.ended[0]
    assert (name, parent) == ("GET request", TRACEPARENT)
    assert attributes["http__route"] == "/things/{session_id}"
    assert attributes["http__response__status_code"] == 200
    assert "hidden" not in str(tracer.ended)


async def test_a_traceparent_that_is_none_is_left_alone() -> None:
    tracer = Spans()
    async with app_of([], tracer) as client:
        await client.get("/things/s-1", headers={"traceparent": "00-junk"})
    assert tracer.ended[0][1] is None


async def test_what_a_route_logs_names_request_and_session() -> None:
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as logs:
        async with app_of([], Spans()) as client:
            await client.get("/things/" + "s" * 100, headers={"x-request-id": "request-1"})
            await client.get("/nothing")
    looked, request, other = logs
    assert looked["request_id"] == request["request_id"] == "request-1"
    assert looked["session_id"] == request["session_id"] == "s" * 64
    assert "session_id" not in other
