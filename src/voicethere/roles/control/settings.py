"""Routes: the two groups of settings.

What a session runs with takes effect with the next deploy; how the project is kept and who may use it
(retention, origins, the monthly limit), at once.
"""

from __future__ import annotations

import msgspec
from litestar import Controller, get, patch
from litestar.di import NamedDependency
from litestar.params import JSONBody

from voicethere.roles.control.plane import ControlPlane
from voicethere.roles.control.setting_changes import changed
from voicethere.wire.control_plane import ChangeSetting, Project, SettingsView

_IDLE_LIMITS = ("idle_timeout_seconds", "data_only_idle_timeout_seconds")


class SettingsRoutes(Controller):
    path = "/projects/{project_id:str}"
    tags = ("settings",)

    @get("/session-settings", summary="Show the session settings")
    async def session_settings(
        self, project: NamedDependency[Project], plane: NamedDependency[ControlPlane]
    ) -> SettingsView:
        return _view(project, await plane.store.get_session_settings(project.id))

    @patch("/session-settings", summary="Change one session setting")
    async def change_session_setting(
        self,
        data: JSONBody[ChangeSetting],
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
    ) -> SettingsView:
        """Takes effect with the next deploy. A 422 names the key, its type and its range."""
        tops = dict.fromkeys(_IDLE_LIMITS, plane.max_idle_seconds)
        before = await plane.store.get_session_settings(project.id)
        after = changed(before, data.key, data.value, tops=tops)
        await plane.store.put_session_settings(project.id, after)
        return _view(project, after)

    @get("/settings", summary="Show the project settings")
    async def project_settings(
        self, project: NamedDependency[Project], plane: NamedDependency[ControlPlane]
    ) -> SettingsView:
        return _view(project, await plane.store.get_project_settings(project.id))

    @patch("/settings", summary="Change one project setting")
    async def change_project_setting(
        self,
        data: JSONBody[ChangeSetting],
        project: NamedDependency[Project],
        plane: NamedDependency[ControlPlane],
    ) -> SettingsView:
        """`retention_days`, `retention_errors`, `allowed_origins`, `monthly_session_limit` and
        `require_issued_conversations` take effect at once, the others with the next deploy. A 422 names the
        key, its type and its range."""
        after = changed(await plane.store.get_project_settings(project.id), data.key, data.value)
        await plane.store.put_project_settings(project.id, after)
        return _view(project, after)


def _view(project: Project, settings: msgspec.Struct) -> SettingsView:
    return SettingsView(project_id=project.id, settings=msgspec.to_builtins(settings))
