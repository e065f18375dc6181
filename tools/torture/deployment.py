"""Sets the platform up for a run: projects with their agents deployed, and sessions to hang errors on.

`python -m tools.torture.deployment`, on the clients' host. Writes what it made, as one JSON file.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from voicethere.client import connect_session, start_session
from voicethere.testing.platform_process import Operator, RunningPlatform

_SETTINGS: Mapping[str, Mapping[str, object]] = {
    "alone": {},
    "restarted": {"agent_crash_policy": "restart_child"},
    "shared": {"shared_child_per_session": True},
}
"""Projects that differ in what becomes of a session when its agent's process dies."""
_CHATS: Mapping[str, Mapping[str, object]] = {
    "chats": {},
    "chats, restarted": {"agent_crash_policy": "restart_child"},
}
"""The same, of chats."""
_SESSIONS_EACH = 2


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A session that synthetic errors are of."""

    project_id: str
    session_id: str
    build_id: str


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """Where clients start sessions. `name` says how it is set."""

    name: str
    project_id: str
    client_key: str


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """What clients and producers need to know."""

    projects: Sequence[Project]
    chats: Sequence[Project]
    targets: Sequence[Target]


async def deploy(control_url: str, base_url: str, api_key: str) -> Deployment:
    """Make it.

    Raises:
        PlatformFailed: the control plane refused something.
        RuntimeError: a session could not be started, with nothing broken yet.
    """
    bundle, chat_bundle = (
        Path(__file__).with_name(name).read_bytes() for name in ("agent.py", "chat_agent.py")
    )
    platform = RunningPlatform(base_url=control_url, api_key=api_key, data_dir="", runner_pid=0)
    projects, chats, targets = [], [], []
    async with Operator(platform) as operator:
        for name, settings in _SETTINGS.items():
            made = await operator.deploy(bundle, name=name, mode="data")
            await _set(operator, made.project_id, settings)
            projects.append(Project(name=name, project_id=made.project_id, client_key=made.client_key))
            for _ in range(_SESSIONS_EACH):
                started = await start_session(base_url, made.project_id, api_key=made.client_key)
                if started.credentials is None:
                    raise RuntimeError(f"no session on a platform that is whole: {started!r}")
                async with connect_session(started.credentials):
                    pass
                targets.append(
                    Target(project_id=made.project_id, session_id=started.session_id, build_id=made.build_id)
                )
        for name, settings in _CHATS.items():
            made = await operator.deploy(chat_bundle, name=name, mode="data")
            await _set(operator, made.project_id, settings)
            chats.append(Project(name=name, project_id=made.project_id, client_key=made.client_key))
    return Deployment(projects=projects, chats=chats, targets=targets)


async def _set(operator: Operator, project_id: str, settings: Mapping[str, object]) -> None:
    """Project settings are in effect from the next deploy."""
    for key, value in settings.items():
        await operator.ask("PATCH", f"/projects/{project_id}/settings", json={"key": key, "value": value})
    if settings:
        job = await operator.ask("POST", "/deployments", json={"project_id": project_id})
        while job["status"] not in ("completed", "failed"):
            await asyncio.sleep(0.05)
            job = await operator.ask("GET", f"/deployments/{job['id']}")


def main() -> None:
    """Set up, and write the file."""
    parser = argparse.ArgumentParser(description="Deploys the torture run's agent.")
    parser.add_argument("--control", required=True)
    parser.add_argument("--base", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    made = asyncio.run(deploy(arguments.control, arguments.base, arguments.key))
    arguments.out.write_bytes(msgspec.json.encode(made))


if __name__ == "__main__":
    main()
