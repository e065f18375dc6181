"""The control plane on a real store, queue and bundle folder; only the sandbox behind it is a fake."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from voicethere.adapters.bundles import DirectoryBundleStore
from voicethere.adapters.http.auth import BearerAuth, token_hash
from voicethere.adapters.queue import EmbeddedErrorQueue
from voicethere.adapters.store.store import Store
from voicethere.core.clock import SystemClock
from voicethere.roles.control import ControlPlane, control_app
from voicethere.testing.keys import issue_key
from voicethere.testing.verifier import FakeBundleVerifier
from voicethere.wire.control_plane import KeyKind
from voicethere.wire.http import HttpErrorBody, HttpErrorCode

GOOD = b"from voicethere.agent import define_agent\ndefine_agent()\n"
BROKEN = b"import nowhere\n"
SERVICE_TOKEN = "service-token-of-the-tests"


@dataclass
class Api:
    """One client of the app, speaking with `key`."""

    http: httpx.AsyncClient
    key: str

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        return await self.http.request(method, f"/api/v1{path}", headers=headers, **options)

    async def get(self, path: str, **params: Any) -> Any:
        response = await self.send("GET", path, params=params)
        assert response.status_code == 200, response.text
        return response.json()

    async def post(self, path: str, body: Any = None, status: int = 201) -> Any:
        response = await self.send("POST", path, json=body)
        assert response.status_code == status, response.text
        return response.json()

    async def refused(self, method: str, path: str, **options: Any) -> tuple[int, str, str]:
        """Status, code and message of an answer that must be an error in the one shape."""
        response = await self.send(method, path, **options)
        error = msgspec.json.decode(response.content, type=HttpErrorBody).error
        assert error.code in HttpErrorCode
        assert error.request_id == response.headers["x-request-id"]
        return response.status_code, error.code.value, error.message

    async def project(self, name: str = "Shop") -> str:
        created = await self.post("/projects", {"name": name})
        return str(created["id"])

    async def upload(self, project_id: str, content: bytes = GOOD, **fields: str) -> httpx.Response:
        files = {"bundle": (fields.pop("filename", "agent.py"), content, "text/x-python")}
        return await self.send("POST", f"/projects/{project_id}/builds", files=files, data=fields)

    async def build(self, project_id: str, content: bytes = GOOD) -> str:
        response = await self.upload(project_id, content)
        assert response.status_code == 201, response.text
        return str(response.json()["id"])


@dataclass
class Platform:
    """What stands behind the API."""

    store: Store
    bundles: DirectoryBundleStore
    queue: EmbeddedErrorQueue
    verifier: FakeBundleVerifier
    http: httpx.AsyncClient
    org_id: str

    async def key(
        self, kind: str = "org", *, org_id: str | None = None, project_id: str | None = None
    ) -> Api:
        made = KeyKind.CLIENT if kind == "client" else KeyKind.ADMIN
        return Api(self.http, await issue_key(self.store, org_id or self.org_id, made, project_id))

    def service(self) -> Api:
        return Api(self.http, SERVICE_TOKEN)


@pytest.fixture
async def platform(tmp_path: Path) -> AsyncIterator[Platform]:
    store = await Store.open(f"sqlite:///{tmp_path}/voicethere.db")
    queue = EmbeddedErrorQueue(tmp_path / "queue.db")
    bundles = DirectoryBundleStore(tmp_path / "bundles")
    verifier = FakeBundleVerifier({b"nowhere": "ModuleNotFoundError: No module named 'nowhere'"})
    plane = ControlPlane(store=store, bundles=bundles, verifier=verifier, queue=queue, clock=SystemClock())
    app = control_app(plane, BearerAuth(store.find_key, token_hash(SERVICE_TOKEN)))
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://control") as http:
        yield Platform(store, bundles, queue, verifier, http, await store.ensure_default_org())
    await queue.aclose()
    await store.aclose()


@pytest.fixture
async def api(platform: Platform) -> Api:
    return await platform.key()
