"""The control plane: projects, builds, deployments, settings, keys, and what went wrong in sessions.

`control_app` is the whole HTTP app; `control_router` the routes alone, to be joined with others'.
"""

from voicethere.roles.control.plane import ControlPlane
from voicethere.roles.control.router import UNAVAILABLE, control_app, control_router

__all__ = ["ControlPlane", "control_app", "control_router", "UNAVAILABLE"]
