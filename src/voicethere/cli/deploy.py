"""`voicethere deploy` and `voicethere undeploy`."""

from __future__ import annotations

import time

import click

from voicethere.cli.api import ControlApi, path_part
from voicethere.cli.failure import Failure
from voicethere.cli.options import project_option
from voicethere.cli.terminal import line, note
from voicethere.wire.control_plane import Deployment, DeploymentStatus

_FINAL = (DeploymentStatus.COMPLETED, DeploymentStatus.FAILED)
_PROGRESS = {
    DeploymentStatus.QUEUED: "It waits to be carried out …",
    DeploymentStatus.ACTIVE: "New sessions run with it; those of before are being ended …",
}
_FIRST_WAIT_SECONDS = 0.2
_LONGEST_WAIT_SECONDS = 2.0


@click.command()
@click.option("--build", "build_id", metavar="ID", help="Default: the active build.")
@click.option(
    "--mode",
    type=click.Choice(["drain", "force"]),
    help="Running sessions go on to their own end (drain, the default), or are ended now (force).",
)
@click.option("--wait", is_flag=True, help="Return when it is done: in force mode, when they have ended.")
@click.option(
    "--timeout", type=click.IntRange(1, 3600), default=120, show_default=True, help="Seconds to wait."
)
@project_option
def deploy(build_id: str | None, mode: str | None, wait: bool, timeout: int, project: str | None) -> None:
    """Put a build into service, with the settings, variables and secrets as they are now."""
    with ControlApi.connect() as api:
        found = api.project(project)
        body = {"project_id": found.id}
        if build_id is not None:
            body["build_id"] = build_id
        if mode is not None:
            body["mode"] = mode
        note(f"Deploying '{found.name}' …")
        job = api.send("POST", "/deployments", Deployment, json=body)
        if wait:
            job = _wait_for(api, job, timeout)
    if job.status is DeploymentStatus.FAILED:
        raise Failure(f"deployment {job.id} failed: {job.error or 'no reason was given'}")
    note(f"Build {job.build_id}: {job.status.value}.")
    line(job.id)


@click.command()
@project_option
def undeploy(project: str | None) -> None:
    """Take a project out of service: new sessions are refused."""
    with ControlApi.connect() as api:
        found = api.project(project)
        api.send("POST", f"/projects/{path_part(found.id)}/undeploy", object)
    note(f"'{found.name}' is not deployed any more.")


def _wait_for(api: ControlApi, job: Deployment, timeout: int) -> Deployment:
    deadline = time.monotonic() + timeout
    pause = _FIRST_WAIT_SECONDS
    shown = None
    while job.status not in _FINAL:
        if job.status is not shown:
            shown = job.status
            note(_PROGRESS.get(job.status, f"{job.status.value} …"))
        if time.monotonic() > deadline:
            raise Failure(
                f"deployment {job.id} is still {job.status.value} after {timeout} s; it goes on. "
                "(--timeout waits longer)"
            )
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_WAIT_SECONDS)
        job = api.get(f"/deployments/{path_part(job.id)}", Deployment)
    return job
