"""Which build a rollback without a name goes back to. Knows nothing of where builds are kept."""

from __future__ import annotations

from collections.abc import Sequence

from voicethere.wire.control_plane import Build, ValidationStatus


def build_before(active_build_id: str, *, served: Sequence[str], builds: Sequence[Build]) -> Build | None:
    """The valid build that was in service before the active one first was; None where there is none.

    `served` are the builds of deployments, `builds` all builds of the project, both newest first. A build
    that was only promoted, and never deployed, counts as newer than all that was. Where nothing else was ever
    deployed: the newest valid build that is older than the active one.

    What was in service *before the active one's first time* and not merely last: otherwise rolling back twice
    would bring back the build that was rolled back from.
    """
    valid = {build.id: build for build in builds if build.validation_status is ValidationStatus.VALID}
    firsts = [number for number, build_id in enumerate(served) if build_id == active_build_id]
    earlier = served[firsts[-1] + 1 :] if firsts else served
    for build_id in earlier:
        if build_id != active_build_id and build_id in valid:
            return valid[build_id]
    if set(served) - {active_build_id}:
        return None
    places = [number for number, build in enumerate(builds) if build.id == active_build_id]
    older = builds[places[0] + 1 :] if places else ()
    return next((build for build in older if build.id in valid), None)
