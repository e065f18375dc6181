"""The control plane's routes put together, with who may reach them."""

from __future__ import annotations

from litestar import Litestar, Router
from litestar.di import Provide

from voicethere import __version__
from voicethere.adapters.http.app import build_app
from voicethere.adapters.http.auth import BearerAuth
from voicethere.adapters.http.cors import CorsPolicy
from voicethere.adapters.store.store import StoreUnavailable
from voicethere.core.ports import BundlesUnavailable, QueueUnavailable, SandboxUnavailable
from voicethere.roles.control.access import key_fits_route, visible_project
from voicethere.roles.control.api_keys import ApiKeyRoutes
from voicethere.roles.control.builds import BuildRoutes
from voicethere.roles.control.dead_letters import DeadLetterRoutes
from voicethere.roles.control.deployments import DeploymentRoutes
from voicethere.roles.control.environment import EnvironmentRoutes
from voicethere.roles.control.plane import ControlPlane
from voicethere.roles.control.projects import ProjectRoutes
from voicethere.roles.control.session_errors import SessionErrorRoutes
from voicethere.roles.control.sessions import SessionRoutes
from voicethere.roles.control.settings import SettingsRoutes

BASE_PATH = "/api/v1"
UNAVAILABLE: tuple[type[Exception], ...] = (
    StoreUnavailable,
    QueueUnavailable,
    BundlesUnavailable,
    SandboxUnavailable,
)
"""What means "try again" (503) when a route raises it; for `build_app(unavailable=…)`."""


def control_router(plane: ControlPlane, auth: BearerAuth) -> Router:
    """All routes below `/api/v1`."""

    async def provide_plane() -> ControlPlane:
        return plane

    return Router(
        BASE_PATH,
        route_handlers=[
            ProjectRoutes,
            BuildRoutes,
            DeploymentRoutes,
            SessionErrorRoutes,
            DeadLetterRoutes,
            SessionRoutes,
            SettingsRoutes,
            EnvironmentRoutes,
            ApiKeyRoutes,
        ],
        guards=[auth.guard, key_fits_route],
        dependencies={
            "plane": Provide(provide_plane),
            "principal": Provide(auth.principal),
            "project": Provide(visible_project),
        },
    )


def control_app(plane: ControlPlane, auth: BearerAuth, *, cors: CorsPolicy | None = None) -> Litestar:
    """The control plane as an app of its own. Without `cors`, no page of another origin may call it."""
    return build_app(
        [control_router(plane, auth)],
        title="VoiceThere control plane",
        version=__version__,
        description="Projects, builds, deployments, settings, keys, and the errors of sessions.",
        cors=cors,
        unavailable=UNAVAILABLE,
    )
