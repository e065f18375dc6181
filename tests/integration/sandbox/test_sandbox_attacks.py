"""A child tries what it must not be able to do; each attempt fails with a readable exception."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.core.ports import ChildSpec

pytestmark = pytest.mark.asyncio(loop_scope="module")

MakeSpec = Callable[..., ChildSpec]

DENIED = r"PermissionError: \[Errno 13\] Permission denied"
NOT_PERMITTED = r"PermissionError: \[Errno 1\] Operation not permitted"


async def attempt(
    sandbox: ZygoteSandbox,
    spec: MakeSpec,
    attack: str,
    *,
    read_only: list[Path] | None = None,
    **arguments: Any,
) -> str:
    """What the attack raised. Fails the test if it raised nothing or the child did not live to tell."""
    child = await sandbox.start(spec("sandbox_attacks:run", read_only=read_only))
    try:
        await child.send(json.dumps({"attack": attack, "arguments": arguments}).encode())
        async for frame in child.frames():
            outcome = json.loads(frame)
            assert "raised" in outcome, f"{attack} succeeded: {outcome}"
            return str(outcome["raised"])
        pytest.fail(f"{attack}: the child ended without an answer: {await child.wait()}")
    finally:
        await child.aclose()


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder that no child was given, with a secret in it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("token")
    return folder


@pytest.fixture
def bundle(tmp_path: Path, outside: Path) -> Path:
    """A folder that the child may read, with a symbolic link out of it."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    (folder / "agent.py").write_text("# the agent")
    (folder / "link").symlink_to(outside / "secret")
    (folder / "folder-link").symlink_to(outside)
    return folder


@pytest.fixture(scope="module")
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the same user as the runner, in place of the runner: it would be a pity for that one."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize(
    ("attack", "arguments", "error"),
    [
        # reading
        ("read", {"path": "/etc/passwd"}, DENIED),
        ("read", {"path": "/etc/shadow"}, DENIED),
        ("listing", {"path": "/"}, DENIED),
        ("listing", {"path": "/proc"}, DENIED),
        ("listing", {"path": "/tmp"}, DENIED),
        ("listing", {"path": ".."}, DENIED),
        ("read_own_proc", {"name": "environ"}, DENIED),
        ("read_own_proc", {"name": "mem"}, DENIED),
        ("read_parent_proc", {"name": "environ"}, DENIED),
        ("read_parent_proc", {"name": "mem"}, DENIED),
        ("read_parent_proc", {"name": "cmdline"}, DENIED),
        # writing
        ("write", {"path": "../from-a-child"}, DENIED),
        ("make_folder", {"path": "../from-a-child"}, DENIED),
        ("make_symlink", {"path": "/etc/passwd"}, DENIED),
        ("make_fifo", {}, NOT_PERMITTED),
        ("change_mode", {"path": "."}, NOT_PERMITTED),
        ("change_owner", {"path": "."}, NOT_PERMITTED),
        ("memory_file", {}, NOT_PERMITTED),
        ("shared_segment", {}, DENIED),
        # programs and processes
        ("execute", {}, NOT_PERMITTED),
        ("run_program", {}, NOT_PERMITTED),
        ("spawn_program", {}, NOT_PERMITTED),
        ("shell", {}, "OSError: the shell's status was"),
        ("fork", {}, NOT_PERMITTED),
        ("fork_bomb", {}, NOT_PERMITTED),
        ("fork_by_multiprocessing", {}, NOT_PERMITTED),
        ("clone_without_thread", {}, NOT_PERMITTED),
        ("call", {"name": "clone3", "numbers": [0, 0]}, r"OSError: \[Errno 38\] Function not implemented"),
        # sockets
        ("new_socket", {"family": socket.AF_INET, "kind": socket.SOCK_STREAM}, NOT_PERMITTED),
        ("new_socket", {"family": socket.AF_INET, "kind": socket.SOCK_DGRAM}, NOT_PERMITTED),
        ("new_socket", {"family": socket.AF_INET, "kind": socket.SOCK_RAW}, NOT_PERMITTED),
        ("new_socket", {"family": socket.AF_INET6, "kind": socket.SOCK_STREAM}, NOT_PERMITTED),
        ("new_socket", {"family": socket.AF_UNIX, "kind": socket.SOCK_STREAM}, NOT_PERMITTED),
        ("new_socket", {"family": socket.AF_NETLINK, "kind": socket.SOCK_RAW}, NOT_PERMITTED),
        ("unix_datagram_pair", {}, NOT_PERMITTED),
        ("unix_connect", {"address": "/dev/log"}, NOT_PERMITTED),
        ("unix_connect", {"address": "\0abstract"}, NOT_PERMITTED),
        ("send_on_pair_to", {"address": "/dev/log"}, NOT_PERMITTED),
        ("look_up", {"host": "localhost"}, "gaierror"),
        # limits
        *(
            ("raise_limit", {"name": name}, "(ValueError: not allowed to raise|PermissionError)")
            for name in (
                "RLIMIT_AS",
                "RLIMIT_CPU",
                "RLIMIT_NOFILE",
                "RLIMIT_NPROC",
                "RLIMIT_FSIZE",
                "RLIMIT_CORE",
            )
        ),
        ("take_memory", {}, "MemoryError"),
        ("fill_a_file", {}, r"OSError: \[Errno 27\] File too large"),
        ("open_many_files", {}, r"OSError: \[Errno 24\] Too many open files"),
        # privileges
        ("become", {"function": "setuid", "numbers": [0]}, NOT_PERMITTED),
        ("become", {"function": "setgid", "numbers": [0]}, NOT_PERMITTED),
        ("become", {"function": "setresuid", "numbers": [0, 0, 0]}, NOT_PERMITTED),
        ("become_in_groups", {}, NOT_PERMITTED),
        ("change_root", {}, NOT_PERMITTED),
        ("push_terminal_input", {}, NOT_PERMITTED),
        *(
            ("call", {"name": name, "numbers": numbers}, NOT_PERMITTED)
            for name, numbers in (
                ("add_key", [0, 0, 0, 0, 0]),
                ("bpf", [0, 0, 0]),
                ("capset", [0, 0]),
                ("inotify_init1", [0]),
                ("io_uring_setup", [1, 0]),
                ("keyctl", [0, 0]),
                ("mount", [0, 0, 0, 0, 0]),
                ("open_by_handle_at", [0, 0, 0]),
                ("perf_event_open", [0, 0, 0, 0, 0]),
                ("personality", [0]),
                ("reboot", [0, 0, 0, 0]),
                ("seccomp", [1, 0, 0]),
                ("setns", [0, 0]),
                ("shmget", [0, 4096, 0o1600]),
                ("unshare", [0x10000000]),
                ("userfaultfd", [0]),
            )
        ),
        # the leash
        ("prctl", {"option": 1, "value": 0}, NOT_PERMITTED),  # PR_SET_PDEATHSIG
        ("prctl", {"option": 4, "value": 1}, NOT_PERMITTED),  # PR_SET_DUMPABLE
        ("prctl", {"option": 22, "value": 0}, NOT_PERMITTED),  # PR_SET_SECCOMP
        ("prctl", {"option": 0x59616D61, "value": 1}, NOT_PERMITTED),  # PR_SET_PTRACER
        # others' descriptors
        *(("use_descriptor", {"number": number}, r"OSError: \[Errno 9\]") for number in (4, 5, 6, 7, 20)),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str | dict) else None,
)
async def test_attempt_fails(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, attack: str, arguments: dict[str, Any], error: str
) -> None:
    raised = await attempt(shared_sandbox, spec, attack, **arguments)
    assert re.match(error, raised), raised


@pytest.mark.parametrize("attack", ["read", "append", "write", "truncate", "remove", "change_mode"])
async def test_a_file_outside_cannot_be_touched(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, outside: Path, attack: str
) -> None:
    raised = await attempt(shared_sandbox, spec, attack, path=str(outside / "secret"))
    assert raised.startswith("PermissionError: ")
    assert (outside / "secret").read_text() == "token"
    assert (outside / "secret").stat().st_mode & 0o777 != 0o777


@pytest.mark.parametrize("path", ["link", "folder-link/secret", "../outside/secret"])
async def test_a_link_leads_nowhere(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, bundle: Path, path: str
) -> None:
    raised = await attempt(shared_sandbox, spec, "read", read_only=[bundle], path=str(bundle / path))
    assert re.match(DENIED, raised), raised


@pytest.mark.parametrize(
    "attack",
    [
        *("append", "write", "truncate", "truncate_by_reading", "remove"),
        *("change_mode", "change_own_mode_by_descriptor", "change_owner", "change_times", "set_attribute"),
    ],
)
async def test_the_libraries_that_it_reads_stay_as_they_are(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, library: Path, attack: str
) -> None:
    before = library.stat()
    raised = await attempt(shared_sandbox, spec, attack, path=str(library))
    assert re.match(rf"{DENIED}|{NOT_PERMITTED}", raised), raised
    assert library.read_text() == "# the library"
    after = library.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime_ns) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime_ns,
    )


@pytest.mark.parametrize("attack", ["append", "write", "truncate", "truncate_by_reading", "remove"])
async def test_its_bundle_is_read_only(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, bundle: Path, attack: str
) -> None:
    raised = await attempt(shared_sandbox, spec, attack, read_only=[bundle], path=str(bundle / "agent.py"))
    assert re.match(DENIED, raised), raised
    assert (bundle / "agent.py").read_text() == "# the agent"


async def test_nothing_moves_over_the_wall(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, outside: Path
) -> None:
    moved = await attempt(shared_sandbox, spec, "move_out", path=str(outside / "moved"))
    assert re.match(rf"{DENIED}|OSError: \[Errno 18\]", moved), moved
    linked = await attempt(shared_sandbox, spec, "link_in", path=str(outside / "secret"))
    assert re.match(rf"{DENIED}|OSError: \[Errno 18\]", linked), linked
    assert os.listdir(outside) == ["secret"]


@pytest.mark.parametrize(
    ("attack", "arguments"),
    [
        ("kill", {"number": signal.SIGKILL}),
        ("kill", {"number": 0}),
        ("own_pipe_to_signal", {}),
        ("handle_to", {}),
        ("slow_down", {}),
        ("pin", {}),
        ("limit_other", {}),
        ("call ptrace", {"numbers": [16, "PID", 0, 0]}),
        ("call process_vm_readv", {"numbers": ["PID", 0, 0, 0, 0, 0]}),
        ("call tkill", {"numbers": ["PID", 9]}),
        ("call tgkill", {"numbers": ["PID", "PID", 9]}),
        ("call rt_sigqueueinfo", {"numbers": ["PID", 9, 0]}),
    ],
    ids=lambda value: str(value)[:30],
)
@pytest.mark.parametrize("victim", ["stranger", "zygote", "sibling"])
async def test_no_other_process_can_be_reached(
    shared_sandbox: ZygoteSandbox,
    spec: MakeSpec,
    stranger: subprocess.Popen[bytes],
    attack: str,
    arguments: dict[str, Any],
    victim: str,
) -> None:
    sibling = await shared_sandbox.start(spec("sandbox_children:echo"))
    assert shared_sandbox.zygote_pid is not None
    pid = {"stranger": stranger.pid, "zygote": shared_sandbox.zygote_pid, "sibling": sibling.pid}[victim]
    try:
        if attack.startswith("call "):
            numbers = [pid if number == "PID" else number for number in arguments["numbers"]]
            raised = await attempt(
                shared_sandbox, spec, "call", name=attack.removeprefix("call "), numbers=numbers
            )
        else:
            raised = await attempt(shared_sandbox, spec, attack, pid=pid, **arguments)
        assert re.match(NOT_PERMITTED, raised), raised
        assert stranger.poll() is None
        frames = sibling.frames()
        assert await anext(frames) == str(sibling.pid).encode()
        await sibling.send(b"still there")
        assert await anext(frames) == b"still there"
    finally:
        await sibling.aclose()


async def test_signals_to_groups_reach_nobody(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    assert re.match(NOT_PERMITTED, await attempt(shared_sandbox, spec, "kill", pid=-1, number=0))
    assert re.match(NOT_PERMITTED, await attempt(shared_sandbox, spec, "signal_parents_group"))


@pytest.mark.parametrize("stack", [0, 32 * 1024], ids=["usual stacks", "small stacks"])
async def test_a_thread_bomb_is_bounded(shared_sandbox: ZygoteSandbox, spec: MakeSpec, stack: int) -> None:
    raised = await attempt(shared_sandbox, spec, "thread_bomb", stack=stack)
    found = re.match(r"RuntimeError: can't start new thread after (\d+)$", raised)
    assert found, raised
    assert int(found[1]) < spec("x:y").limits.processes
