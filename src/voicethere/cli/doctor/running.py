"""A platform that runs: is it reached with the stored credentials?"""

from __future__ import annotations

from voicethere.cli.doctor.findings import Finding, in_thread, ok, warning


async def platform() -> Finding:
    """Ask it for the projects, as every command would."""
    return await in_thread(_ask)


def _ask() -> Finding:
    from voicethere.cli.api import ControlApi
    from voicethere.cli.config import effective_credentials
    from voicethere.cli.failure import Failure
    from voicethere.wire.control_plane import ProjectList

    try:
        credentials = effective_credentials()
        if not credentials.api_key:
            return ok("not logged in: nothing to reach yet")
        with ControlApi(credentials.api_base or "", credentials.api_key) as api:
            count = len(api.get("/projects", ProjectList).projects)
            return ok(f"{api.base} answers ({count} project{'' if count == 1 else 's'})")
    except Failure as problem:
        return warning(problem.message, "Start it (`voicethere up`), or log in anew (`voicethere login`).")
