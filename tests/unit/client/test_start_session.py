"""`start_session`: retries, polling, limits and every way a service can answer. No test waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest

from voicethere.client import ProvisionResult, SessionErrorEnvelope, StatusUpdate, Timing, start_session

BASE = "http://sessions.test"
CREDENTIALS = {
    "session_id": "s1",
    "mode": "voice+data",
    "join_token": "very-secret",
    "signaling_url": "ws://sessions.test/v1/signaling",
    "room_id": "r1",
    "ice_servers": [
        {"urls": ["stun:stun.test"]},
        {"urls": "turn:turn.test", "username": "u", "credential": "c"},
    ],
    "expires_at": "2026-06-19T12:00:00.000Z",
}
QUEUED = {"session_id": "s1", "status": "queued"}
READY = QUEUED | {"status": "ready", "credentials": CREDENTIALS}


class Time:
    """A clock that `sleep` moves."""

    def __init__(self, random: float = 0.5) -> None:
        self.now = 0.0
        self.sleeps: list[float] = []
        self.timing = Timing(monotonic=lambda: self.now, sleep=self.sleep, random=lambda: random)

    async def sleep(self, seconds: float) -> None:
        self.sleeps.append(round(seconds, 3))
        self.now += seconds


class Service:
    """Answers with what it was given, one after the other; the last for good."""

    def __init__(
        self, *answers: httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]
    ) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer(request) if callable(answer) else answer


def poll(**fields: Any) -> httpx.Response:
    return httpx.Response(200, json=QUEUED | fields)


async def start(
    service: Service, time: Time | None = None, base: str = BASE, **options: Any
) -> tuple[ProvisionResult, list[SessionErrorEnvelope]]:
    errors: list[SessionErrorEnvelope] = []
    async with httpx.AsyncClient(transport=httpx.MockTransport(service)) as http:
        result = await start_session(
            base,
            "project",
            api_key="vthc_key",
            on_session_error=errors.append,
            http=http,
            timing=(time or Time()).timing,
            **options,
        )
    return result, errors


async def test_queued_then_ready() -> None:
    service = Service(
        httpx.Response(202, json=QUEUED), poll(status="provisioning"), httpx.Response(200, json=READY)
    )
    updates: list[StatusUpdate] = []
    result, errors = await start(
        service, build_id="b1", customer_context={"tier": "pro"}, on_status=updates.append
    )
    assert result.ok
    assert errors == []
    assert result.credentials is not None
    assert result.credentials.join_token == "very-secret"
    assert "very-secret" not in repr(result)
    assert [update.status for update in updates] == ["queued", "provisioning", "ready"]
    post, get, _ = service.requests
    assert (post.method, str(post.url)) == ("POST", f"{BASE}/v1/sessions")
    assert (get.method, str(get.url)) == ("GET", f"{BASE}/v1/sessions/s1")
    assert post.headers["authorization"] == get.headers["authorization"] == "Bearer vthc_key"
    assert msgspec.json.decode(post.content) == {
        "project_id": "project",
        "build_id": "b1",
        "async": True,
        "wait_for_capacity": True,
        "customer_context": {"tier": "pro"},
    }


async def test_credentials_at_once() -> None:
    service = Service(httpx.Response(200, json=CREDENTIALS | {"project_id": "p", "build_id": "b"}))
    result, _ = await start(service, run_async=False)
    assert result.ok
    assert result.session_id == "s1"
    assert msgspec.json.decode(service.requests[0].content)["async"] is False


async def test_connection_failures_and_gateways_are_retried_under_one_key_then_given_up() -> None:
    time = Time()
    service = Service(
        httpx.ConnectError("refused"),
        httpx.Response(503),
        httpx.Response(202, json=QUEUED),
        httpx.Response(200, json=READY),
    )
    result, _ = await start(service, time)
    assert result.ok
    assert time.sleeps[:2] == [0.25, 0.75]
    assert len({request.headers["idempotency-key"] for request in service.requests[:3]}) == 1

    for failure in (httpx.Response(502), httpx.Response(504), httpx.ReadError("reset")):
        time = Time()
        service = Service(failure)
        result, errors = await start(service, time)
        assert (result.ok, result.code) == (False, "HTTP_ERROR")
        assert time.sleeps == [0.25, 0.75, 1.5]
        assert len(service.requests) == 4
        assert [error.code for error in errors] == ["PROVISIONING_FAILED"]
        assert errors[0].session_id == ""
        assert errors[0].recoverable is False


async def test_two_starts_have_two_keys() -> None:
    service = Service(httpx.Response(200, json=CREDENTIALS))
    await start(service)
    await start(service)
    first, second = (request.headers["idempotency-key"] for request in service.requests)
    assert first != second


async def test_the_schedule_of_polls() -> None:
    time = Time()
    polls = [poll(status="waiting", queue_position=3)] * 6 + [poll(status="waiting", queue_position=2)] * 2
    service = Service(httpx.Response(202, json=QUEUED), *polls, httpx.Response(200, json=READY))
    result, _ = await start(service, time)
    assert result.ok
    assert time.sleeps == [1, 2, 3, 5, 5, 5, 1, 2]  # the first poll comes at once


@pytest.mark.parametrize(("random", "factor"), [(0.0, 0.9), (0.999999, 1.1)])
async def test_polls_vary_by_a_tenth_and_never_pass_five_seconds(random: float, factor: float) -> None:
    time = Time(random)
    service = Service(httpx.Response(202, json=QUEUED), *[poll()] * 5, httpx.Response(200, json=READY))
    await start(service, time, poll_interval=0.5)
    assert time.sleeps == pytest.approx([factor * each for each in (1, 1.5, 2.5, 2.5, 2.5)], abs=0.01)
    time = Time(random)
    service = Service(httpx.Response(202, json=QUEUED), *[poll()] * 4, httpx.Response(200, json=READY))
    await start(service, time, poll_interval=4)
    assert max(time.sleeps) <= 5


async def test_a_servers_hint_wins_within_its_bounds() -> None:
    time = Time()
    hints = [poll(retry_after_ms=ms) for ms in (1, 700, 60_000)]
    service = Service(httpx.Response(202, json=QUEUED), *hints, httpx.Response(200, json=READY))
    await start(service, time)
    assert time.sleeps == [0.25, 0.7, 5]


async def test_the_overall_limit() -> None:
    time = Time()
    result, errors = await start(Service(httpx.Response(202, json=QUEUED), poll()), time, timeout=20)
    assert (result.code, result.session_id) == ("TIMEOUT", "s1")
    assert time.now == pytest.approx(20)
    assert [(error.code, error.recoverable, error.session_id) for error in errors] == [
        ("PROVISIONING_TIMEOUT", True, "s1")
    ]
    time = Time()
    result, _ = await start(Service(httpx.ConnectError("refused")), time, timeout=0.5)
    assert result.code == "TIMEOUT"
    assert time.now == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("NOT_DEPLOYED", "PROVISIONING_FAILED"),
        ("TIMEOUT", "PROVISIONING_TIMEOUT"),
        ("A_NEW_ONE", "PROVISIONING_FAILED"),
    ],
)
async def test_failed_provisioning(code: str, error: str) -> None:
    failed = poll(status="failed", failure_code=code, failure_message="no build is deployed")
    result, errors = await start(Service(httpx.Response(202, json=QUEUED), failed))
    assert (result.code, result.message, result.session_id) == (code, "no build is deployed", "s1")
    assert [each.code for each in errors] == [error]
    assert "no build is deployed" in errors[0].message


def body(code: str, message: str = "words") -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "request_id": "r"}}


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (httpx.Response(401, json=body("UNAUTHORIZED")), "HTTP_ERROR", "HTTP 401 UNAUTHORIZED: words"),
        (httpx.Response(404, json=body("NOT_FOUND")), "HTTP_ERROR", "HTTP 404"),
        (httpx.Response(429, json=body("CAPACITY_EXCEEDED")), "CAPACITY_EXCEEDED", "HTTP 429"),
        (httpx.Response(429, json=body("MONTHLY_USAGE_EXCEEDED")), "MONTHLY_USAGE_EXCEEDED", "HTTP 429"),
        (
            httpx.Response(500, html="<html>oh no</html>"),
            "HTTP_ERROR",
            "without an error body of ours (text/html",
        ),
        (httpx.Response(400, json=[1]), "HTTP_ERROR", "HTTP 400"),
        (
            httpx.Response(302, headers={"location": "https://x.test/login"}),
            "HTTP_ERROR",
            "redirected to https://x",
        ),
        (httpx.Response(200, html="<p>"), "HTTP_ERROR", "not a JSON object (text/html"),
        (httpx.Response(200, content=b"\xff\xfe"), "HTTP_ERROR", "not a JSON object"),
        (httpx.Response(200, content=b"[" * 10_000), "HTTP_ERROR", "not a JSON object"),
        (httpx.Response(202, json={"status": "queued"}), "HTTP_ERROR", "without a session_id"),
        (httpx.Response(202, json={"session_id": 7}), "HTTP_ERROR", "not understood"),
        (httpx.Response(200, json=CREDENTIALS | {"mode": "telepathy"}), "HTTP_ERROR", "not understood"),
        (httpx.Response(200, json=READY | {"credentials": None}), "HTTP_ERROR", "without credentials"),
        (httpx.Response(200, content=b"x" * 300_000), "HTTP_ERROR", "larger than 256 KiB"),
        (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] x"), "HTTP_ERROR", "no trusted TLS connection"),
        (httpx.UnsupportedProtocol("x"), "HTTP_ERROR", "cannot be sent"),
    ],
)
async def test_answers_that_end_the_start(answer: Any, code: str, words: str) -> None:
    service = Service(answer)
    result, errors = await start(service)
    assert (result.ok, result.code) == (False, code)
    assert result.message is not None
    assert words in result.message
    assert len(result.message) < 800
    assert len(service.requests) == 1
    assert len(errors) == 1


async def test_a_poll_that_came_too_often_is_no_failure() -> None:
    busy = httpx.Response(429, json=body("RATE_LIMITED"))
    result, _ = await start(Service(httpx.Response(202, json=QUEUED), busy, httpx.Response(200, json=READY)))
    assert result.ok


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("http://h.test/", "http://h.test/v1/sessions"),
        ("http://h.test/v1", "http://h.test/v1/sessions"),
        ("https://h.test:8443/api/v1/", "https://h.test:8443/api/v1/sessions"),
        ("http://[::1]:80", "http://[::1]/v1/sessions"),
    ],
)
async def test_how_a_base_is_understood(base: str, url: str) -> None:
    service = Service(httpx.Response(200, json=CREDENTIALS))
    await start(service, base=base)
    assert str(service.requests[0].url) == url


@pytest.mark.parametrize(
    "base", ["", "h.test", "ftp://h.test", "http://", "http://h:port", "http://h/?a=1", "http://["]
)
async def test_a_base_that_is_none(base: str) -> None:
    service = Service(httpx.Response(200, json=CREDENTIALS))
    result, errors = await start(service, base=base)
    assert result.code == "HTTP_ERROR"
    assert "an address like" in (result.message or "")
    assert len(errors) == 1
    assert service.requests == []


async def test_a_key_that_is_none() -> None:
    errors: list[SessionErrorEnvelope] = []
    result = await start_session(BASE, "p", api_key="key\r\nwith: header", on_session_error=errors.append)
    assert "printable ASCII" in (result.message or "")
    assert "with: header" not in (result.message or "")
    assert len(errors) == 1


async def test_cancelling_stops_at_once_and_is_no_failure() -> None:
    waiting = asyncio.Event()

    async def sleep(seconds: float) -> None:
        waiting.set()
        await asyncio.Event().wait()

    errors: list[SessionErrorEnvelope] = []
    service = Service(httpx.Response(202, json=QUEUED), poll())
    async with httpx.AsyncClient(transport=httpx.MockTransport(service)) as http:
        starting = asyncio.create_task(
            start_session(
                BASE, "p", api_key="k", on_session_error=errors.append, http=http, timing=Timing(sleep=sleep)
            )
        )
        await asyncio.wait_for(waiting.wait(), 5)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert errors == []
    assert len(service.requests) == 2, "the start and one poll"


async def test_a_service_that_never_answers_is_given_up_within_the_limit() -> None:
    release = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await release.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        result = await start_session(f"http://127.0.0.1:{port}", "p", api_key="k", timeout=0.2)
        release.set()
    assert result.code == "TIMEOUT"


async def test_callbacks_may_be_async_and_may_raise(caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    async def tell(error: SessionErrorEnvelope) -> None:
        told.append(error.code)
        raise RuntimeError("in the application")

    service = Service(httpx.Response(401, json=body("UNAUTHORIZED")))
    async with httpx.AsyncClient(transport=httpx.MockTransport(service)) as http:
        result = await start_session(BASE, "p", api_key="k", on_session_error=tell, http=http)
    assert result.code == "HTTP_ERROR"
    assert told == ["PROVISIONING_FAILED"]
    assert "on_session_error raised" in caplog.text
