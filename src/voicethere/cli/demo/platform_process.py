"""A platform of the demo's own: `voicethere up` as a child process, and what is deployed on it."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator
from importlib import resources
from typing import Any

import httpx
import msgspec

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class DemoFailed(Exception):
    """Something that the demo shows did not happen; the words say what."""


class RunningPlatform(msgspec.Struct, frozen=True, kw_only=True):
    """Where it serves, and the org key it printed."""

    base_url: str
    api_key: str
    data_dir: str


@contextlib.asynccontextmanager
async def fresh_platform() -> AsyncIterator[RunningPlatform]:
    """A platform on a free port in a folder of its own; nothing of it is left afterwards.

    Raises:
        DemoFailed: it did not start; the words hold the end of what it said.
    """
    with tempfile.TemporaryDirectory(prefix="voicethere-demo-") as folder:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "voicethere.cli.main",
            "up",
            "--port=0",
            f"--data-dir={folder}",
            "--json",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                line = await process.stdout.readline()
            if not line:
                raise DemoFailed(f"the platform did not start: {await _last_words(process)}")
            yield msgspec.json.decode(line, type=RunningPlatform)
        except TimeoutError:
            raise DemoFailed(f"the platform did not serve within {START_SECONDS:g} s") from None
        finally:
            await _end(process)


async def _last_words(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    said = (await process.stderr.read()).decode(errors="replace").strip()
    return said[-500:] or f"it exited with status {await process.wait()}"


async def _end(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await process.communicate()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


class Deployed(msgspec.Struct, frozen=True, kw_only=True):
    """A project with the demo's agent deployed, and a client key for it."""

    project_id: str
    client_key: str
    error_message: str


class Operator:
    """What the demo does as the operator: over the control plane, with the org key."""

    def __init__(self, platform: RunningPlatform) -> None:
        self._http = httpx.AsyncClient(
            base_url=platform.base_url + "/api/v1",
            headers={"Authorization": f"Bearer {platform.api_key}"},
            timeout=30.0,
        )

    async def aclose(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def deploy(self, *, name: str, mode: str, error_message: str) -> Deployed:
        """A project of `mode` with the demo's agent deployed, speaking `error_message` when it fails."""
        bundle = resources.files("voicethere.cli.demo").joinpath("demo_agent.py").read_bytes()
        project_id = (await self._ask("POST", "/projects", json={"name": name}))["id"]
        at = f"/projects/{project_id}"
        await self._ask("PATCH", f"{at}/settings", json={"key": "mode", "value": mode})
        await self._ask(
            "PATCH", f"{at}/session-settings", json={"key": "error_message", "value": error_message}
        )
        build = await self._ask("POST", f"{at}/builds", files={"bundle": ("demo_agent.py", bundle)})
        await self._ask("POST", f"{at}/promote", json={"build_id": build["id"]})
        job = await self._ask("POST", "/deployments", json={"project_id": project_id})
        async with asyncio.timeout(30.0):
            while job["status"] not in ("completed", "failed"):
                await asyncio.sleep(0.1)
                job = await self._ask("GET", f"/deployments/{job['id']}")
        if job["status"] != "completed":
            raise DemoFailed(f"the deploy failed: {job['error']}")
        key = await self._ask(
            "POST", "/api-keys", json={"name": f"{name} page", "kind": "client", "project_id": project_id}
        )
        return Deployed(project_id=project_id, client_key=key["key"], error_message=error_message)

    async def session(self, project_id: str, session_id: str) -> dict[str, Any]:
        """The session's row."""
        return await self._ask("GET", f"/projects/{project_id}/sessions/{session_id}")

    async def errors(self, project_id: str, session_id: str) -> list[dict[str, Any]]:
        """The session's stored errors."""
        answer = await self._ask("GET", f"/projects/{project_id}/sessions/{session_id}/errors")
        errors: list[dict[str, Any]] = answer["errors"]
        return errors

    async def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = await self._http.request(method, path, **options)
        if answer.is_error:
            raise DemoFailed(f"{method} {path}: HTTP {answer.status_code}: {answer.text[:300]}")
        body: dict[str, Any] = answer.json()
        return body
