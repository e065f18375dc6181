"""What every `SandboxPort` does, whoever implements it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.core.ports import (
    ChildExit,
    ChildProcess,
    ChildSpec,
    OutputLine,
    SandboxPort,
    SandboxUnavailable,
)
from voicethere.wire.ipc import MAX_FRAME_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENTRIES = Path(__file__).parent / "sandbox"
IMPLEMENTATIONS = ("zygote",)


def make(implementation: str, scratch_root: Path) -> SandboxPort:
    assert implementation == "zygote"
    return ZygoteSandbox(preload=["port_entries"], scratch_root=scratch_root, import_from=[ENTRIES])


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=IMPLEMENTATIONS)
async def sandbox(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[SandboxPort]:
    sandbox = make(request.param, tmp_path_factory.mktemp("scratch"))
    yield sandbox
    await sandbox.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def child(sandbox: SandboxPort, tmp_path: Path) -> AsyncIterator[ChildProcess]:
    """Echoes frames; may read `tmp_path`."""
    child = await sandbox.start(
        ChildSpec(entry_point="port_entries:echo", environment={"SESSION_ID": "s-1"}, read_only=[tmp_path])
    )
    yield child
    await child.aclose()


async def test_frames_go_both_ways_in_order(child: ChildProcess) -> None:
    frames = child.frames()
    for number in range(20):
        await child.send(b"frame %d" % number)
    assert [await anext(frames) for _ in range(20)] == [b"frame %d" % number for number in range(20)]


async def test_an_empty_frame_is_a_frame(child: ChildProcess) -> None:
    await child.send(b"")
    assert await anext(child.frames()) == b""


async def test_the_environment_is_the_given_one(child: ChildProcess) -> None:
    frames = child.frames()
    await child.send(b"env SESSION_ID")
    assert await anext(frames) == b"s-1"
    await child.send(b"env PATH")
    assert await anext(frames) == b"-"


async def test_it_may_read_what_it_was_given(child: ChildProcess, tmp_path: Path) -> None:
    (tmp_path / "agent.py").write_text("# an agent")
    await child.send(f"read {tmp_path}/agent.py".encode())
    assert await anext(child.frames()) == b"# an agent"


async def test_output_comes_in_lines_until_the_end(child: ChildProcess) -> None:
    await child.send(b"say first")
    await child.send(b"say second")
    await child.send(b"exit 0")
    lines = [line async for line in child.output()]
    for stream in ("stdout", "stderr"):
        assert [line for line in lines if line.stream == stream] == [
            OutputLine(stream, "first"),
            OutputLine(stream, "second"),
        ]


@pytest.mark.parametrize("status", [0, 1, 42])
async def test_its_exit_status_is_told_to_all_who_wait(child: ChildProcess, status: int) -> None:
    waiting = [asyncio.create_task(child.wait()) for _ in range(3)]
    await child.send(b"exit %d" % status)
    assert await asyncio.gather(*waiting) == [ChildExit(exit_status=status)] * 3
    assert [frame async for frame in child.frames()] == []


async def test_kill_is_a_signal_and_harmless_afterwards(child: ChildProcess) -> None:
    child.kill()
    assert await child.wait() == ChildExit(signal=signal.SIGKILL)
    child.kill()
    await child.send(b"swallowed")
    assert await child.wait() == ChildExit(signal=signal.SIGKILL)


async def test_an_oversized_frame_kills(child: ChildProcess) -> None:
    await child.send(b"oversized %d" % (MAX_FRAME_BYTES + 1))
    assert [frame async for frame in child.frames()] == []
    assert await child.wait() == ChildExit(signal=signal.SIGKILL)


async def test_aclose_ends_a_running_child_and_may_be_repeated(child: ChildProcess) -> None:
    await child.aclose()
    await child.aclose()
    assert await child.wait() == ChildExit(signal=signal.SIGKILL)
    assert [frame async for frame in child.frames()] == []
    assert [line async for line in child.output()] == []


async def test_children_do_not_disturb_each_other(sandbox: SandboxPort, child: ChildProcess) -> None:
    other = await sandbox.start(ChildSpec(entry_point="port_entries:echo", environment={}, read_only=[]))
    assert other.pid != child.pid
    await other.aclose()
    await child.send(b"still here")
    assert await anext(child.frames()) == b"still here"


async def test_mechanisms_have_names(sandbox: SandboxPort) -> None:
    names = [mechanism.name for mechanism in sandbox.mechanisms()]
    assert names
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
async def test_a_closed_sandbox_starts_nothing(implementation: str, tmp_path: Path) -> None:
    sandbox = make(implementation, tmp_path)
    child = await sandbox.start(ChildSpec(entry_point="port_entries:echo", environment={}, read_only=[]))
    await sandbox.aclose()
    assert await child.wait() == ChildExit(signal=signal.SIGKILL)
    with pytest.raises(SandboxUnavailable):
        await sandbox.start(ChildSpec(entry_point="port_entries:echo", environment={}, read_only=[]))
