"""The platform's roles as processes of their own, on one data directory: started, killed, started again."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence

import msgspec

from voicethere.testing.platform_process import RunningPlatform
from voicethere.testing.role_process import Role


class RolesApart(msgspec.Struct, frozen=True):
    """Control plane, session service and runner; `control` and `sessions` say where to reach them."""

    control: Role
    sessions: Role
    runner: Role

    @property
    def control_plane(self) -> RunningPlatform:
        """For an `Operator`."""
        return self._at(self.control)

    @property
    def session_service(self) -> RunningPlatform:
        """For clients."""
        return self._at(self.sessions)

    @property
    def service(self) -> Role:
        """The session service's process."""
        return self.sessions

    def _at(self, role: Role) -> RunningPlatform:
        return RunningPlatform(
            base_url=role.said["base_url"],
            api_key=self.control.said["api_key"],
            data_dir=role.data_dir,
            runner_pid=self.runner.pid if self.runner.running else 0,
        )


@contextlib.asynccontextmanager
async def roles_apart(
    *, with_runner: bool = True, runner_options: Sequence[str] = ()
) -> AsyncIterator[RolesApart]:
    """All three, until the end; each must then end in order when it is asked to.

    Without a runner only the other two are started; `runner` is then a process that never was.
    """
    with tempfile.TemporaryDirectory(prefix="voicethere-") as folder:
        roles = RolesApart(
            Role("control", folder, options=["--port=0"]),
            Role("sessions", folder, options=["--port=0"]),
            Role("runner", folder, options=runner_options),
        )
        started: list[Role] = []
        try:
            for role in (roles.control, roles.sessions, roles.runner):
                if role is roles.runner and not with_runner:
                    continue
                started.append(role)
                await role.start()
            yield roles
        finally:
            statuses = [await role.end() for role in reversed(started)]
        assert not any(statuses), f"a role did not end in order: {statuses}"
