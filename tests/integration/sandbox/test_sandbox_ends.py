"""Deaths of the zygote and the runner, and what must not be left after any end."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.adapters.sandbox.zygote_process import ZygoteProcess
from voicethere.core.ports import ChildExit, ChildSpec, SandboxUnavailable

MakeSpec = Callable[..., ChildSpec]
HasEnded = Callable[[int], bool]


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def descriptors_of(pid: int) -> dict[str, str]:
    if pid == os.getpid():
        gc.collect()  # what other tests forgot must not close in between
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[entry.name] = os.readlink(entry)
        except FileNotFoundError:
            continue  # the one that lists the folder
    return found


def environment_of(pid: int) -> str:
    return Path(f"/proc/{pid}/environ").read_text()


async def one_round(sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    child = await sandbox.start(spec("sandbox_children:echo"))
    try:
        frames = child.frames()
        assert await anext(frames) == str(child.pid).encode()
        await child.send(b"hello")
        assert await anext(frames) == b"hello"
    finally:
        await child.aclose()


# ------------------------------------------------------------------ the zygote


async def test_a_killed_zygote_is_reported_and_replaced(
    sandbox: ZygoteSandbox, spec: MakeSpec, has_ended: HasEnded
) -> None:
    children = [await sandbox.start(spec("sandbox_children:echo")) for _ in range(3)]
    first = sandbox.zygote_pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    assert [await child.wait() for child in children] == [ChildExit(signal=signal.SIGKILL)] * 3
    assert all(has_ended(child.pid) for child in children)
    await one_round(sandbox, spec)
    assert sandbox.zygote_pid not in (None, first)
    for child in children:
        await child.aclose()
    async with asyncio.timeout(30):  # the dead zygote is reaped
        while first in children_of(os.getpid()):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


async def test_a_start_during_the_zygotes_death_says_so(sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    await sandbox.open()
    assert sandbox.zygote_pid is not None
    os.kill(sandbox.zygote_pid, signal.SIGSTOP)
    starting = asyncio.create_task(sandbox.start(spec("sandbox_children:echo")))
    await asyncio.sleep(0)
    os.kill(sandbox.zygote_pid, signal.SIGKILL)
    with pytest.raises(SandboxUnavailable, match="zygote"):
        await starting
    await one_round(sandbox, spec)


async def test_who_comes_behind_a_fork_that_met_the_zygotes_death_does_not_meet_it_again() -> None:
    zygote = await ZygoteProcess.spawn(preload=[], import_from=[])
    ours, theirs = socket.socketpair()
    with ours, theirs:
        os.kill(zygote.pid, signal.SIGKILL)
        os.waitid(os.P_PID, zygote.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - the loop must not hear of it
        with pytest.raises(SandboxUnavailable, match="zygote does not answer"):
            await zygote.fork(theirs, theirs.fileno(), theirs.fileno())
    assert not zygote.alive
    await zygote.aclose()


async def test_ctrl_c_does_not_end_the_zygote(sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    await sandbox.open()
    before = sandbox.zygote_pid
    assert before is not None
    os.kill(before, signal.SIGINT)
    await one_round(sandbox, spec)
    assert sandbox.zygote_pid == before
    assert os.getsid(before) == before, "nor does the terminal's own signal reach it"


async def test_the_zygote_holds_nothing_of_the_runner(
    sandbox: ZygoteSandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "of the runner")
    database = os.open(tmp_path / "database", os.O_WRONLY | os.O_CREAT)
    os.set_inheritable(database, True)
    await sandbox.open()
    os.close(database)
    assert sandbox.zygote_pid is not None
    assert str(tmp_path / "database") not in descriptors_of(sandbox.zygote_pid).values()
    assert "DATABASE_PASSWORD" not in environment_of(sandbox.zygote_pid)


async def test_it_ends_its_children_when_closed(
    sandbox: ZygoteSandbox, spec: MakeSpec, has_ended: HasEnded
) -> None:
    children = [await sandbox.start(spec("sandbox_children:deaf")) for _ in range(3)]
    zygote = sandbox.zygote_pid
    assert zygote is not None
    await sandbox.aclose()
    assert all(child.pid not in children_of(os.getpid()) and has_ended(child.pid) for child in children)
    with pytest.raises(ProcessLookupError):
        os.kill(zygote, 0)
    with pytest.raises(SandboxUnavailable, match="the sandbox is closed"):
        await sandbox.start(spec("sandbox_children:echo"))
    await sandbox.aclose()


# ------------------------------------------------------------------ the runner


async def test_nothing_outlives_a_killed_runner(
    tmp_path: Path, entries: Path, spec: MakeSpec, has_ended: HasEnded
) -> None:
    scratch = tmp_path / "scratch"
    runner = await asyncio.create_subprocess_exec(
        sys.executable, str(entries / "sandbox_runner.py"), str(scratch), stdout=asyncio.subprocess.PIPE
    )
    assert runner.stdout is not None
    async with asyncio.timeout(60):
        who = json.loads(await runner.stdout.readline())
    assert len(list(scratch.glob("sandbox-*"))) == 1
    # Another sandbox on the same root leaves the folder of one that lives alone.
    neighbour = ZygoteSandbox(preload=["sandbox_children"], scratch_root=scratch, import_from=[entries])
    await neighbour.open()
    assert len(list(scratch.glob("sandbox-*"))) == 2
    runner.kill()
    await runner.wait()
    assert has_ended(who["zygote"])
    assert all(has_ended(pid) for pid in who["children"])
    await neighbour.aclose()
    assert len(list(scratch.glob("sandbox-*"))) == 1, "the killed runner's folder is still there"

    successor = ZygoteSandbox(preload=["sandbox_children"], scratch_root=scratch, import_from=[entries])
    await successor.open()
    assert len(list(scratch.glob("sandbox-*"))) == 1, "the orphan is removed"
    await one_round(successor, spec)
    await successor.aclose()
    assert list(scratch.glob("sandbox-*")) == []


# ------------------------------------------------------------------ nothing is left


async def test_fifty_starts_leave_nothing(sandbox: ZygoteSandbox, spec: MakeSpec, tmp_path: Path) -> None:
    await one_round(sandbox, spec)
    zygote = sandbox.zygote_pid
    assert zygote is not None
    before = (descriptors_of(os.getpid()), descriptors_of(zygote), threading.active_count())
    processes = children_of(os.getpid())
    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            for _ in range(5):
                group.create_task(one_round(sandbox, spec))
    assert children_of(zygote) == []
    assert children_of(os.getpid()) == processes
    assert (descriptors_of(os.getpid()), descriptors_of(zygote), threading.active_count()) == before
    assert [path.name for path in (tmp_path / "scratch").glob("sandbox-*/*") if path.name != ".lock"] == []


async def test_hostile_leftovers_are_removed(sandbox: ZygoteSandbox, spec: MakeSpec, tmp_path: Path) -> None:
    child = await sandbox.start(spec("sandbox_children:clutter"))
    assert await anext(child.frames()) == b"done"
    assert len(list((tmp_path / "scratch").glob("sandbox-*/1/*"))) >= 4
    await child.aclose()
    assert list((tmp_path / "scratch").glob("sandbox-*/1")) == []


async def test_a_start_cancelled_at_any_moment_leaves_nothing(sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    await one_round(sandbox, spec)
    zygote = sandbox.zygote_pid
    assert zygote is not None
    before = (descriptors_of(os.getpid()), descriptors_of(zygote))
    cancelled = 0
    for steps in range(60):
        starting = asyncio.create_task(sandbox.start(spec("sandbox_children:echo")))
        for _ in range(steps):
            await asyncio.sleep(0)
        if starting.cancel():
            cancelled += 1
        try:
            child = await starting
        except asyncio.CancelledError:
            continue
        await child.aclose()
    assert cancelled > 10
    # A child that came for nobody is killed when it comes; a further start is answered after that.
    async with asyncio.timeout(60):
        while children_of(zygote):
            await one_round(sandbox, spec)
    await one_round(sandbox, spec)
    assert (descriptors_of(os.getpid()), descriptors_of(zygote)) == before


# ------------------------------------------------------------------ what cannot work says so


async def test_a_module_that_cannot_be_preloaded(tmp_path: Path, spec: MakeSpec) -> None:
    before = children_of(os.getpid())
    sandbox = ZygoteSandbox(preload=["json", "no_such_module"], scratch_root=tmp_path)
    with pytest.raises(
        SandboxUnavailable,
        match="preloading no_such_module failed: ModuleNotFoundError: No module named 'no_such_module'",
    ):
        await sandbox.start(spec("m:f"))
    assert children_of(os.getpid()) == before
    await sandbox.aclose()


async def test_a_module_that_starts_threads_cannot_be_preloaded(tmp_path: Path, spec: MakeSpec) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "starts_a_thread.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    sandbox = ZygoteSandbox(
        preload=["starts_a_thread"], scratch_root=tmp_path / "scratch", import_from=[folder]
    )
    with pytest.raises(SandboxUnavailable, match="starts_a_thread left 1 thread"):
        await sandbox.open()
    await sandbox.aclose()


async def test_a_module_that_crashes_the_zygote(tmp_path: Path, spec: MakeSpec) -> None:
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "crashes.py").write_text("import os\nos.abort()\n")
    sandbox = ZygoteSandbox(preload=["crashes"], scratch_root=tmp_path / "scratch", import_from=[folder])
    with pytest.raises(SandboxUnavailable, match="the zygote has died"):
        await sandbox.open()
    await sandbox.aclose()


async def test_a_scratch_folder_that_children_could_read_is_refused(tmp_path: Path) -> None:
    sandbox = ZygoteSandbox(preload=[], scratch_root=tmp_path / "in" / "scratch", import_from=[tmp_path])
    with pytest.raises(SandboxUnavailable, match="which every child may read"):
        await sandbox.open()
    await sandbox.aclose()


# ------------------------------------------------------------------ mechanisms


async def test_mechanisms_are_told_before_and_after_opening(sandbox: ZygoteSandbox) -> None:
    before = sandbox.mechanisms()
    await sandbox.open()
    assert sandbox.mechanisms() == before
    found = {mechanism.name: mechanism for mechanism in before}
    assert {
        "landlock",
        "seccomp",
        "resource-limits",
        "thread-limit",
        "network-and-ipc-namespace",
    } <= found.keys()
    assert all(mechanism.note for mechanism in before if not mechanism.available)


async def test_strict_mode_names_what_is_missing(
    tmp_path: Path, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine without Landlock, as far as the zygote can tell: it is started with a patched module.
    lacking = tmp_path / "lacking_landlock.py"
    lacking.write_text(
        "from voicethere.adapters.sandbox import landlock, zygote\nimport sys\n"
        "landlock.abi = lambda: 0\nzygote.main(sys.argv[1:])\n"
    )
    interpreter = tmp_path / "python"
    interpreter.write_text(f'#!/bin/sh\nshift 5\nexec "{sys.executable}" -I "{lacking}" "$@"\n')
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    strict = ZygoteSandbox(preload=[], scratch_root=tmp_path / "strict", strict=True)
    with pytest.raises(SandboxUnavailable, match=r"strict mode, and this machine cannot .*: landlock: "):
        await strict.start(spec("m:f"))
    await strict.aclose()

    lenient = ZygoteSandbox(preload=[], scratch_root=tmp_path / "lenient")
    await lenient.open()
    landlock = {mechanism.name: mechanism for mechanism in lenient.mechanisms()}["landlock"]
    assert not landlock.available
    assert landlock.note
    await lenient.aclose()
