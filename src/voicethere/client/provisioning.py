"""Starting a session: ask the session service, poll until it is ready, say what came of it.

The outcome is a value. Every failure is also told to `on_session_error`, once (contract: session-api.md).
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx
import msgspec
from msgspec import UNSET

from voicethere.client.callbacks import Callback, call_once
from voicethere.client.customer_context import checked_context
from voicethere.client.local_errors import local_error
from voicethere.client.polling import PollSchedule
from voicethere.client.session_service import (
    HTTP_ERROR,
    Deadline,
    OutOfTime,
    RequestFailed,
    SessionService,
    Timing,
    sessions_url,
)
from voicethere.errors.codes import SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.session_api import Credentials, FailureCode, ProvisioningStatus, StartSession

_FAILURE_CODES = frozenset(code.value for code in FailureCode)


class ProvisionResult(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """What came of a start. With `ok` there are `credentials`; otherwise `code` and `message` say why not.

    `code` is one of the service's failure codes, `HTTP_ERROR` or `TIMEOUT`.
    """

    ok: bool
    credentials: Credentials | None = None
    code: str | None = None
    message: str | None = None
    session_id: str = ""

    def __repr__(self) -> str:
        # The credentials hold the join token, which belongs in no log.
        if self.ok:
            return f"ProvisionResult(ok=True, session_id={self.session_id!r})"
        why = f"code={self.code!r}, message={self.message!r}"
        return f"ProvisionResult(ok=False, {why}, session_id={self.session_id!r})"


class StatusUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """How far provisioning is; the place and the wait are only there while it waits."""

    session_id: str
    status: str
    queue_position: int | None = None
    estimated_wait_seconds: float | None = None


class _Answer(msgspec.Struct):
    """What a client reads of either answer: lenient, for it may be of a newer service."""

    session_id: str = ""
    status: str = ""
    failure_code: str | None = None
    failure_message: str | None = None
    queue_position: int | None = None
    estimated_wait_seconds: float | None = None
    retry_after_ms: float | None = None
    credentials: dict[str, Any] | None = None


async def start_session(
    api_base: str,
    project_id: str,
    *,
    api_key: str,
    build_id: str | None = None,
    customer_context: Mapping[str, Any] | None = None,
    run_async: bool = True,
    wait_for_capacity: bool = True,
    timeout: float = 120.0,
    poll_interval: float = 1.0,
    on_session_error: Callback[SessionErrorEnvelope] | None = None,
    on_status: Callback[StatusUpdate] | None = None,
    http: httpx.AsyncClient | None = None,
    timing: Timing | None = None,
) -> ProvisionResult:
    """Start a session and wait until it can be joined.

    Args:
        api_base: the platform's address, such as `http://127.0.0.1:8080`.
        api_key: a client key of the project, or an org or user key.
        build_id: None for the deployed build.
        customer_context: a JSON object of at most 8 KiB and 8 levels; it comes back on every error.
        run_async: False lets the service answer with the credentials at once, where it can.
        wait_for_capacity: False fails with `CAPACITY_EXCEEDED` where nothing is free.
        timeout: seconds for all of it.
        poll_interval: seconds between polls at first; 2, 3 and 5 times that while nothing changes.
        on_session_error: told once of a failure, as everywhere in a session.
        on_status: told of every change of the status or the place in the queue.
        http: a client of the application's; it is not closed.
        timing: the clock, sleep and chance; for tests.

    Raises:
        ValueError: `customer_context` is not acceptable; nothing was sent.

    Example:
        >>> provision = await start_session("http://127.0.0.1:8080", project, api_key=key)
        >>> if provision.ok:
        ...     async with connect_session(provision.credentials) as session: ...
    """
    context = checked_context(customer_context)
    timing = timing or Timing()
    body = StartSession(
        project_id=project_id,
        build_id=build_id if build_id is not None else UNSET,
        run_async=run_async,
        wait_for_capacity=wait_for_capacity,
        customer_context=context if context is not None else UNSET,
    )
    client = http or httpx.AsyncClient()
    start = _Start(on_status)
    try:
        result = await start.run(client, api_base, api_key, body, timing, timeout, poll_interval)
    finally:
        if http is None:
            await client.aclose()
    if not result.ok:
        timed_out = result.code == FailureCode.TIMEOUT.value
        code = SessionErrorCode.PROVISIONING_TIMEOUT if timed_out else SessionErrorCode.PROVISIONING_FAILED
        error = local_error(code, result.session_id, detail=f"{result.code}: {result.message}")
        await call_once("on_session_error", on_session_error, error)
    return result


class _Start:
    """One start, as far as it got."""

    def __init__(self, on_status: Callback[StatusUpdate] | None) -> None:
        self._on_status = on_status
        self._session_id = ""
        self._last_update: StatusUpdate | None = None

    async def run(
        self,
        http: httpx.AsyncClient,
        api_base: str,
        api_key: str,
        body: StartSession,
        timing: Timing,
        timeout: float,
        poll_interval: float,
    ) -> ProvisionResult:
        deadline = Deadline(timing, timeout)
        try:
            url = sessions_url(api_base)
            service = SessionService(http, api_key, timing, deadline)
            # One key for all retries of this start: however often it is sent, there is one session.
            key = {"Idempotency-Key": str(uuid.uuid4())}
            _, started = await service.request("POST", url, json=body, headers=key)
            if "join_token" in started:
                return self._ready(started)
            answer = self._read(started)
            if not answer.session_id:
                raise RequestFailed(HTTP_ERROR, "the session service started a session without a session_id")
            return await self._poll(
                service,
                f"{url}/{quote(answer.session_id, safe='')}",
                answer,
                deadline,
                PollSchedule(poll_interval, timing.random),
            )
        except OutOfTime:
            return self._failed(FailureCode.TIMEOUT.value, f"the session was not ready within {timeout:g} s")
        except RequestFailed as failure:
            code = failure.code if failure.code in _FAILURE_CODES else HTTP_ERROR
            return self._failed(code, failure.message)

    async def _poll(
        self, service: SessionService, url: str, answer: _Answer, deadline: Deadline, schedule: PollSchedule
    ) -> ProvisionResult:
        asked = False
        while True:
            self._session_id = answer.session_id or self._session_id
            await self._tell(answer)
            if answer.status == ProvisioningStatus.READY.value:
                if answer.credentials is None:
                    raise RequestFailed(HTTP_ERROR, "the session is ready, but came without credentials")
                return self._ready(answer.credentials)
            if answer.status == ProvisioningStatus.FAILED.value:
                code = answer.failure_code or FailureCode.ORCHESTRATOR_ERROR.value
                return self._failed(code, answer.failure_message or "the service gave no reason")
            delay = schedule.next_delay(answer.status, answer.queue_position, answer.retry_after_ms)
            if asked:
                await deadline.sleep(delay)
            # The first poll comes at once: most sessions are ready by then.
            asked = True
            try:
                _, polled = await service.request("GET", url)
            except RequestFailed as failure:
                if failure.status != 429:
                    raise
                answer.retry_after_ms = None  # asked too often: nothing new, and slower from here
                continue
            answer = self._read(polled)

    def _read(self, fields: dict[str, Any]) -> _Answer:
        try:
            return msgspec.convert(fields, _Answer)
        except msgspec.ValidationError as error:
            raise RequestFailed(
                HTTP_ERROR, f"the session service's answer is not understood: {error}"
            ) from None

    async def _tell(self, answer: _Answer) -> None:
        update = StatusUpdate(
            session_id=self._session_id,
            status=answer.status,
            queue_position=answer.queue_position,
            estimated_wait_seconds=answer.estimated_wait_seconds,
        )
        last = self._last_update
        if last is None or (last.status, last.queue_position) != (update.status, update.queue_position):
            self._last_update = update
            await call_once("on_status", self._on_status, update)

    def _ready(self, fields: dict[str, Any]) -> ProvisionResult:
        try:
            credentials = msgspec.convert(fields, Credentials)
        except msgspec.ValidationError as error:
            raise RequestFailed(
                HTTP_ERROR, f"the session's credentials are not understood: {error}"
            ) from None
        return ProvisionResult(ok=True, credentials=credentials, session_id=credentials.session_id)

    def _failed(self, code: str, message: str) -> ProvisionResult:
        return ProvisionResult(ok=False, code=code, message=message, session_id=self._session_id)
