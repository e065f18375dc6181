"""A sandbox whose children can import the entry points in `entries`, and ways to talk to them."""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.adapters.sandbox.confined_child import ConfinedChild
from voicethere.core.ports import ChildSpec, SandboxLimits

ENTRIES = Path(__file__).parent / "entries"

StartChild = Callable[..., "asyncio.Future[ConfinedChild]"]


def child_spec(
    entry_point: str,
    *,
    environment: dict[str, str] | None = None,
    read_only: list[Path] | None = None,
    limits: SandboxLimits | None = None,
) -> ChildSpec:
    return ChildSpec(
        entry_point=entry_point,
        environment=environment or {},
        read_only=read_only or [],
        limits=limits or SandboxLimits(),
    )


@pytest.fixture(scope="session")
def spec() -> Callable[..., ChildSpec]:
    """Makes a `ChildSpec` for an entry point in `entries`."""
    return child_spec


@pytest.fixture(scope="session")
def entries() -> Path:
    return ENTRIES


@pytest_asyncio.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[ZygoteSandbox]:
    sandbox = ZygoteSandbox(
        preload=["asyncio", "sandbox_children"], scratch_root=tmp_path / "scratch", import_from=[ENTRIES]
    )
    yield sandbox
    await sandbox.aclose()


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file in a folder that children import from: stands for the interpreter's own files."""
    file = tmp_path_factory.mktemp("library") / "library.py"
    file.write_text("# the library")
    return file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_sandbox(
    tmp_path_factory: pytest.TempPathFactory, library: Path
) -> AsyncIterator[ZygoteSandbox]:
    """One for all tests of a module that only start children in it."""
    sandbox = ZygoteSandbox(
        preload=["asyncio", "sandbox_attacks", "sandbox_children"],
        scratch_root=tmp_path_factory.mktemp("shared-scratch"),
        import_from=[ENTRIES, library.parent],
    )
    yield sandbox
    await sandbox.aclose()


def _has_ended(pid: int, timeout_seconds: float = 30.0) -> bool:
    """Wait until a process is gone or only waits to be reaped by somebody else."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        return bool(poll.poll(timeout_seconds * 1000))
    finally:
        os.close(pidfd)


@pytest.fixture(scope="session")
def has_ended() -> Callable[[int], bool]:
    return _has_ended
