"""Routes: what a project's agents find in their environment, plain and secret.

Variables begin with `AGENT_`. Secrets may have any other upper-case name too (`OPENAI_API_KEY`), are only
ever shown masked, and are redacted from every error. Both take effect with the next deploy.
"""

from __future__ import annotations

import re

from litestar import Controller, delete, get, post, put
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from voicethere.adapters.http.errors import conflict, error_responses, invalid, not_found
from voicethere.roles.control.plane import ControlPlane
from voicethere.wire import ipc
from voicethere.wire.control_plane import (
    EnvironmentView,
    MaskedSecret,
    Project,
    PutSecret,
    PutVariable,
    SecretList,
)

MAX_VALUE_CHARS = 8192
MAX_ENTRIES = 100

_VARIABLE = re.compile(r"AGENT_[A-Z0-9_]{1,100}")
_SECRET = re.compile(r"[A-Z][A-Z0-9_]{0,100}")
_RESERVED = frozenset(
    (
        ipc.ENV_SESSION_ID,
        ipc.ENV_PROJECT_ID,
        ipc.ENV_BUILD_ID,
        ipc.ENV_IDLE_TIMEOUT_SEC,
        ipc.ENV_CUSTOMER_CONTEXT,
        ipc.ENV_CRASH_TTS_MESSAGE,
        "PATH",
        "HOME",
        "TMPDIR",
    )
)
_RESERVED_STARTS = ("LD_", "PYTHON")  # they would change how the interpreter itself starts


class EnvironmentRoutes(Controller):
    path = "/projects/{project_id:str}"
    tags = ("environment",)

    @get("/environment", summary="Show the project's variables")
    async def get_environment(
        self, project: NamedDependency[Project], plane: NamedDependency[ControlPlane]
    ) -> EnvironmentView:
        return EnvironmentView(
            project_id=project.id, environment=await plane.store.get_environment(project.id)
        )

    @put("/environment/{key:str}", summary="Set a variable", responses=error_responses(409))
    async def put_variable(
        self,
        key: FromPath[str],
        data: JSONBody[PutVariable],
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
    ) -> EnvironmentView:
        _require_name(key, _VARIABLE, "a variable's name is AGENT_ and then A-Z, 0-9 and _")
        _require_value(data.value)
        variables = await plane.store.get_environment(project.id)
        if key in await plane.store.get_secrets(project.id):
            raise conflict(f"{key} is a secret of this project: delete that first.")
        _require_room(variables, key)
        await plane.store.put_environment(project.id, key, data.value)
        return EnvironmentView(project_id=project.id, environment={**variables, key: data.value})

    @delete("/environment/{key:str}", summary="Remove a variable")
    async def delete_variable(
        self, key: FromPath[str], project: NamedDependency[Project], plane: NamedDependency[ControlPlane]
    ) -> None:
        if not await plane.store.delete_environment(project.id, key):
            raise not_found("variable")

    @get("/secrets", summary="List the project's secrets, masked")
    async def list_secrets(
        self, project: NamedDependency[Project], plane: NamedDependency[ControlPlane]
    ) -> SecretList:
        found = await plane.store.get_secrets(project.id)
        secrets = [MaskedSecret(name=name, masked=masked(found[name])) for name in sorted(found)]
        return SecretList(project_id=project.id, secrets=secrets)

    @post("/secrets", summary="Set a secret", responses=error_responses(409))
    async def put_secret(
        self,
        data: JSONBody[PutSecret],
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
    ) -> MaskedSecret:
        _require_name(data.name, _SECRET, "a secret's name is A-Z first, then A-Z, 0-9 and _")
        _require_value(data.value)
        if not data.value:
            raise invalid("`value`: a secret must not be empty.")
        if data.name in await plane.store.get_environment(project.id):
            raise conflict(f"{data.name} is a variable of this project: delete that first.")
        _require_room(await plane.store.get_secrets(project.id), data.name)
        await plane.store.put_secret(project.id, data.name, data.value)
        return MaskedSecret(name=data.name, masked=masked(data.value))

    @delete("/secrets/{name:str}", summary="Remove a secret")
    async def delete_secret(
        self, name: FromPath[str], project: NamedDependency[Project], plane: NamedDependency[ControlPlane]
    ) -> None:
        if not await plane.store.delete_secret(project.id, name):
            raise not_found("secret")


def masked(value: str) -> str:
    """Enough to tell two long secrets apart, never enough to use one; nothing of a short one."""
    return "••••" + (value[-4:] if len(value) >= 20 else "")


def _require_name(name: str, pattern: re.Pattern[str], words: str) -> None:
    if not pattern.fullmatch(name):
        raise invalid(f"`{name[:100]}`: {words}, at most 100 characters.")
    if name in _RESERVED or name.startswith(_RESERVED_STARTS):
        raise invalid(f"`{name}`: the platform sets this one itself.")


def _require_value(value: str) -> None:
    if len(value) > MAX_VALUE_CHARS:
        raise invalid(f"`value`: at most {MAX_VALUE_CHARS} characters, these are {len(value)}.")
    if "\0" in value:
        raise invalid("`value`: an environment cannot hold the character U+0000.")


def _require_room(present: dict[str, str], name: str) -> None:
    if name not in present and len(present) >= MAX_ENTRIES:
        raise conflict(f"The project has {MAX_ENTRIES} of these already, the most there can be.")
