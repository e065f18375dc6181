"""A whole platform of one's own for a while: `voicethere up` as a child process, and an operator on its API.

For end-to-end tests of agents and applications, and for the demo. Everything is real.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import httpx
import msgspec

START_SECONDS = 60.0
STOP_SECONDS = 30.0
DEPLOY_SECONDS = 30.0
_KEPT_LINES = 1_000


class PlatformFailed(Exception):
    """The platform did not do what it was asked to; the words say what."""


class RunningPlatform(msgspec.Struct, frozen=True, kw_only=True):
    """Where it serves, the org key it printed, and its runner's process."""

    base_url: str
    api_key: str
    data_dir: str
    runner_pid: int


@contextlib.asynccontextmanager
async def fresh_platform(
    options: Sequence[str] = (), *, log: deque[str] | None = None
) -> AsyncIterator[RunningPlatform]:
    """A platform on a free port in a folder of its own; nothing of it is left afterwards.

    `options` are further ones of `voicethere up`. `log` is filled with the lines that it logs.

    Raises:
        PlatformFailed: it did not start; the words hold the end of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="voicethere-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "voicethere.cli.main",
            "up",
            "--port=0",
            f"--data-dir={folder}",
            "--json",
            "--until-stdin-closes",
            *options,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        lines: deque[str] = deque(maxlen=_KEPT_LINES) if log is None else log
        reading = asyncio.create_task(_read(process.stderr, lines), name="log of the platform")
        try:
            yield await _serving(process, reading, lines)
        finally:
            await _end(process, reading)


async def _read(stderr: asyncio.StreamReader | None, lines: deque[str]) -> None:
    """Nobody may wait for the log to be read, least of all the platform: a full pipe would stop it."""
    assert stderr is not None
    line = ""
    while data := await stderr.read(65_536):
        *whole, line = (line + data.decode(errors="replace")).split("\n")
        lines.extend(whole)
    if line:
        lines.append(line)


async def _serving(
    process: asyncio.subprocess.Process, reading: asyncio.Task[None], lines: deque[str]
) -> RunningPlatform:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline()
            if line:
                return msgspec.json.decode(line, type=RunningPlatform)
            await asyncio.shield(reading)
    except TimeoutError:
        raise PlatformFailed(f"the platform did not serve within {START_SECONDS:g} s") from None
    said = "\n".join(lines).strip()
    raise PlatformFailed(f"the platform did not start: {said[-500:] or 'it said nothing'}")


async def _end(process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await _gone(process, reading)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await _gone(process, reading)


async def _gone(process: asyncio.subprocess.Process, reading: asyncio.Task[None]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    await process.stdout.read()
    await asyncio.shield(reading)
    await process.wait()


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """A project with an agent deployed, and a client key for it."""

    project_id: str
    build_id: str
    client_key: str


class Operator:
    """Works the control plane with the org key. Use as `async with Operator(platform) as operator:`."""

    def __init__(self, platform: RunningPlatform) -> None:
        self._http = httpx.AsyncClient(
            base_url=platform.base_url + "/api/v1",
            headers={"Authorization": f"Bearer {platform.api_key}"},
            timeout=30.0,
            # A connection that is kept may be closed by the server just when it is used again.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    async def __aenter__(self) -> Operator:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    async def deploy(
        self,
        bundle: bytes,
        *,
        name: str,
        mode: str = "voice",
        session_settings: Mapping[str, Any] | None = None,
        secrets: Mapping[str, str] | None = None,
    ) -> Deployed:
        """A new project of `mode` with `bundle` deployed on it.

        Raises:
            PlatformFailed: the platform refused a step; the words hold its answer.
        """
        project_id = (await self.ask("POST", "/projects", json={"name": name}))["id"]
        at = f"/projects/{project_id}"
        await self.ask("PATCH", f"{at}/settings", json={"key": "mode", "value": mode})
        for key, value in (session_settings or {}).items():
            await self.ask("PATCH", f"{at}/session-settings", json={"key": key, "value": value})
        for key, value in (secrets or {}).items():
            await self.ask("POST", f"{at}/secrets", json={"name": key, "value": value})
        build = await self.ask("POST", f"{at}/builds", files={"bundle": ("agent.py", bundle)})
        if build["validation_status"] != "valid":
            raise PlatformFailed(f"the bundle is not valid: {build['validation_error']}")
        await self.ask("POST", f"{at}/promote", json={"build_id": build["id"]})
        job = await self.ask("POST", "/deployments", json={"project_id": project_id})
        async with asyncio.timeout(DEPLOY_SECONDS):
            while job["status"] not in ("completed", "failed"):
                await asyncio.sleep(0.05)
                job = await self.ask("GET", f"/deployments/{job['id']}")
        if job["status"] != "completed":
            raise PlatformFailed(f"the deploy failed: {job['error']}")
        issued = await self.ask(
            "POST", "/api-keys", json={"name": f"{name} page", "kind": "client", "project_id": project_id}
        )
        return Deployed(project_id=project_id, build_id=build["id"], client_key=issued["key"])

    async def session(self, project_id: str, session_id: str) -> dict[str, Any]:
        """The session's row."""
        return await self.ask("GET", f"/projects/{project_id}/sessions/{session_id}")

    async def errors(self, project_id: str, session_id: str) -> list[dict[str, Any]]:
        """The session's stored errors, oldest first."""
        answer = await self.ask("GET", f"/projects/{project_id}/sessions/{session_id}/errors")
        errors: list[dict[str, Any]] = answer["errors"]
        return errors

    async def ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """One request below `/api/v1`, and the JSON of its answer.

        Raises:
            PlatformFailed: the answer is an error.
        """
        answer = await self._http.request(method, path, **options)
        if answer.is_error:
            raise PlatformFailed(f"{method} {path}: HTTP {answer.status_code}: {answer.text[:300]}")
        body: dict[str, Any] = answer.json()
        return body
