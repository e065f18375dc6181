"""The interpreter, the machine, and which of our packages are installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping

from voicethere.cli.doctor.findings import Finding, failed, in_thread, ok, warning

_OLDEST_PYTHON = (3, 11)
_AGENT_BYTES = 512 * 1024 * 1024
_MIB = 1024 * 1024
_PLATFORM = ("voicethere.cli.platform", "voicethere.cli.runner_role")
"""What `voicethere up` and its runner import."""

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+).*?extra\s*==\s*['\"](?P<extra>[\w-]+)['\"]")


async def python() -> Finding:
    """The interpreter and the kernel."""
    return judge_python(sys.version_info[:2], sys.platform)


def judge_python(version: tuple[int, int], system: str) -> Finding:
    """`version` is (major, minor), `system` what `sys.platform` says."""
    found = f"Python {platform.python_version()} on {platform.system()} {platform.release()}"
    found = f"{found} ({platform.machine()}), {os.cpu_count()} cores"
    if version < _OLDEST_PYTHON:
        return failed(found, "Install Python 3.11 or newer.")
    if not system.startswith("linux"):
        return failed(found, "Agents are confined by Linux: run the platform on Linux, or in a container.")
    return ok(found)


async def memory() -> Finding:
    """What is free for agents."""
    import psutil

    state = psutil.virtual_memory()
    return judge_memory(state.available, state.total)


def judge_memory(available: int, total: int) -> Finding:
    """Both in bytes."""
    found = f"{available // _MIB:,} of {total // _MIB:,} MiB available"
    if available < _AGENT_BYTES:
        return warning(found, "One agent may use 512 MiB: end other programs, or take a larger machine.")
    return ok(found)


async def packages() -> Finding:
    """What the platform imports, and the extras of the distribution, each whole or not."""
    # A missing module becomes the finding, with its name.
    await in_thread(lambda: [importlib.import_module(module) for module in _PLATFORM])
    try:
        required = importlib.metadata.requires("voicethere") or []
    except importlib.metadata.PackageNotFoundError:
        return warning(
            "voicethere runs from its sources, not installed", "pip install '.[server,client,speech]'"
        )
    return judge_packages(missing_by_extra(required))


def missing_by_extra(requirements: Iterable[str]) -> Mapping[str, list[str]]:
    """Extra → what of it is not installed, from the requirements as the metadata writes them."""
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        match = _REQUIREMENT.match(requirement)
        if match is not None:
            lacking = missing.setdefault(match["extra"], [])
            if not _installed(match["name"]):
                lacking.append(match["name"])
    return missing


def judge_packages(missing: Mapping[str, list[str]]) -> Finding:
    """`missing` is extra → what of it is not installed."""
    wanted = ("server", "speech", "client")
    whole = [extra for extra in wanted if not missing.get(extra)]
    lacking = [extra for extra in wanted if missing.get(extra)]
    found = f"complete: {', '.join(whole) or 'none'}"
    if not lacking:
        return ok(found)
    found += "".join(f"; {extra} lacks {', '.join(missing[extra])}" for extra in lacking)
    return warning(found, f"pip install 'voicethere[{','.join(lacking)}]'")


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
