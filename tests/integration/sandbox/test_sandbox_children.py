"""What a child finds, how it ends, and what the runner learns of both."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from voicethere.adapters.sandbox import OUT_OF_MEMORY_STATUS, ZygoteSandbox
from voicethere.adapters.sandbox.confined_child import ConfinedChild
from voicethere.core.ports import ChildExit, ChildSpec, OutputLine, SandboxLimits, SandboxUnavailable
from voicethere.wire.ipc import MAX_FRAME_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="module")

MakeSpec = Callable[..., ChildSpec]


async def only_frame(child: ConfinedChild) -> bytes:
    """The first frame; fails with the child's output where there is none."""
    async for frame in child.frames():
        return frame
    lines = [line.text async for line in child.output()]
    pytest.fail(f"no frame: {await child.wait()}, {lines}")


async def output_of(child: ConfinedChild) -> list[OutputLine]:
    return [line async for line in child.output()]


async def test_it_finds_nothing_but_what_it_was_given(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_PASSWORD", "of the runner")
    limits = SandboxLimits(
        memory_bytes=300 << 20, cpu_seconds=20, open_files=50, processes=9, file_bytes=4096
    )
    child = await shared_sandbox.start(
        spec(
            "sandbox_children:surroundings", environment={"SESSION_ID": "s-1", "ÜBER": "ü=\n"}, limits=limits
        )
    )
    try:
        found: dict[str, Any] = json.loads(await only_frame(child))
    finally:
        await child.aclose()
    scratch = found["cwd"]
    expected = {"SESSION_ID": "s-1", "ÜBER": "ü=\n", "HOME": scratch, "TMPDIR": scratch}
    assert found["environ"] == expected
    assert sorted(found["real_environ"]) == sorted(f"{name}={value}" for name, value in expected.items())
    assert found["descriptors"] == [0, 1, 2, 3]
    assert found["umask"] == 0o077
    assert found["session"]
    assert found["group"]
    assert found["limits"] == {
        "RLIMIT_AS": [300 << 20, 300 << 20],
        "RLIMIT_CPU": [20, 25],
        "RLIMIT_NOFILE": [50, 50],
        "RLIMIT_NPROC": [9, 9],
        "RLIMIT_FSIZE": [4096, 4096],
        "RLIMIT_CORE": [0, 0],
    }
    assert found["dumpable"] == 0
    assert found["no_new_privs"] == 1
    assert found["capabilities_in_bounding_set"] == []
    assert found["sigint_ignored"]
    assert found["threads"] == 1
    with pytest.raises(FileNotFoundError):  # aclose removes the scratch folder
        os.listdir(scratch)


async def test_what_the_environment_names_goes_before(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    child = await shared_sandbox.start(
        spec("sandbox_children:surroundings", environment={"HOME": "/nowhere"})
    )
    try:
        assert json.loads(await only_frame(child))["environ"]["HOME"] == "/nowhere"
    finally:
        await child.aclose()


async def test_honest_work_is_possible(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    child = await shared_sandbox.start(spec("sandbox_children:at_work"))
    try:
        assert await only_frame(child) == b"fine"
        assert await child.wait() == ChildExit(exit_status=0)
    finally:
        await child.aclose()


async def test_numpy_can_be_imported_behind_the_walls(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    pytest.importorskip("numpy")
    child = await shared_sandbox.start(spec("sandbox_children:numerical"))
    try:
        assert json.loads(await only_frame(child))["sum"] == 200.0**3
    finally:
        await child.aclose()


async def test_preloaded_numpy_draws_differently_in_each_child(
    tmp_path: Path, spec: MakeSpec, entries: Path
) -> None:
    pytest.importorskip("numpy")
    sandbox = ZygoteSandbox(preload=["numpy", "numpy.random"], scratch_root=tmp_path, import_from=[entries])
    try:
        children = [await sandbox.start(spec("sandbox_children:numerical_preloaded")) for _ in range(3)]
        answers = [json.loads(await only_frame(child)) for child in children]
        assert {answer["sum"] for answer in answers} == {200.0**3}
        assert len({answer["draw"] for answer in answers}) == 3
    finally:
        await sandbox.aclose()


@pytest.mark.parametrize(
    ("way", "exit_"),
    [
        ("return", ChildExit(exit_status=0)),
        ("exit 3", ChildExit(exit_status=3)),
        ("_exit 7", ChildExit(exit_status=7)),
        ("memory", ChildExit(exit_status=OUT_OF_MEMORY_STATUS, out_of_memory=True)),
        ("abort", ChildExit(signal=signal.SIGABRT)),
        ("segfault", ChildExit(signal=signal.SIGSEGV)),
        ("terminate", ChildExit(signal=signal.SIGTERM)),
    ],
)
async def test_how_it_ended(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, way: str, exit_: ChildExit
) -> None:
    child = await shared_sandbox.start(spec("sandbox_children:end"))
    try:
        await child.send(way.encode())
        assert await child.wait() == exit_
        assert [frame async for frame in child.frames()] == []
    finally:
        await child.aclose()


async def test_words_of_its_end_are_in_its_output(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    raising = await shared_sandbox.start(spec("sandbox_children:end"))
    await raising.send(b"raise")
    assert await raising.wait() == ChildExit(exit_status=1)
    lines = await output_of(raising)
    assert {line.stream for line in lines} == {"stderr"}
    assert any("sandbox_children.py" in line.text and "in end" in line.text for line in lines)
    assert lines[-1].text == "LookupError: nowhere to be found"
    await raising.aclose()

    leaving = await shared_sandbox.start(spec("sandbox_children:end"))
    await leaving.send(b"exit words")
    assert await leaving.wait() == ChildExit(exit_status=1)
    assert await output_of(leaving) == [OutputLine("stderr", "these were my last words")]
    await leaving.aclose()


async def test_processor_time_ends(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    child = await shared_sandbox.start(spec("sandbox_children:end", limits=SandboxLimits(cpu_seconds=1)))
    try:
        await child.send(b"spin")
        assert await child.wait() == ChildExit(signal=signal.SIGXCPU)
    finally:
        await child.aclose()


async def test_a_killed_child_is_reported_to_all_who_wait(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec
) -> None:
    child = await shared_sandbox.start(spec("sandbox_children:echo"))
    try:
        waiting = [asyncio.create_task(child.wait()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting.pop().cancel()  # one that stops waiting takes nothing from the others
        os.kill(child.pid, signal.SIGKILL)
        assert await asyncio.gather(*waiting) == [ChildExit(signal=signal.SIGKILL)] * 2
        assert await child.wait() == ChildExit(signal=signal.SIGKILL)
        child.kill()
        await child.send(b"to nobody")
    finally:
        await child.aclose()
        await child.aclose()


@pytest.mark.parametrize(
    ("entry_point", "problem"),
    [
        (
            "sandbox_children:not_there",
            "AttributeError: module 'sandbox_children' has no attribute 'not_there'",
        ),
        ("no_such_module:main", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
async def test_an_entry_point_that_is_not_there(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, entry_point: str, problem: str
) -> None:
    child = await shared_sandbox.start(spec(entry_point))
    try:
        assert await child.wait() == ChildExit(exit_status=1)
        assert (await output_of(child))[-1].text == problem
    finally:
        await child.aclose()


async def test_what_cannot_be_set_up_is_refused_in_words(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec
) -> None:
    with pytest.raises(SandboxUnavailable, match=r"could not be confined: .*/not/there"):
        await shared_sandbox.start(spec("sandbox_children:echo", read_only=[Path("/not/there")]))
    with pytest.raises(SandboxUnavailable, match=r"could not be confined: .*environment variable"):
        await shared_sandbox.start(spec("sandbox_children:echo", environment={"A=B": "c"}))
    with pytest.raises(ValueError, match="must read module:function"):
        await shared_sandbox.start(spec("sandbox_children"))


# ------------------------------------------------------------------ frames


async def test_frames_of_every_size_arrive(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    sizes = [0, 1, 65_535, 65_536, 1_000_000, MAX_FRAME_BYTES, 3]
    child = await shared_sandbox.start(spec("sandbox_children:big_frames"))
    try:
        await child.send(json.dumps(sizes).encode())
        assert [len(frame) async for frame in child.frames()] == sizes
    finally:
        await child.aclose()


async def test_frames_of_every_size_are_sent(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    child = await shared_sandbox.start(spec("sandbox_children:echo"))
    try:
        frames = child.frames()
        await anext(frames)
        for size in (0, 1, 65_536, MAX_FRAME_BYTES):
            sending = asyncio.create_task(child.send(b"x" * size))
            assert len(await anext(frames)) == size
            await sending
        with pytest.raises(ValueError, match=f"at most {MAX_FRAME_BYTES}"):
            await child.send(bytes(MAX_FRAME_BYTES + 1))
    finally:
        await child.aclose()


async def test_a_frame_past_the_bound_kills(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    child = await shared_sandbox.start(spec("sandbox_children:huge_frame"))
    try:
        assert [frame async for frame in child.frames()] == []
        assert await child.wait() == ChildExit(signal=signal.SIGKILL)
        assert child.protocol_violation is not None
        assert "frame of 2147483647 bytes; at most" in child.protocol_violation
    finally:
        await child.aclose()


async def test_half_a_frame_is_none(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    child = await shared_sandbox.start(spec("sandbox_children:half_a_frame"))
    try:
        assert [frame async for frame in child.frames()] == []
        assert await child.wait() == ChildExit(exit_status=0)
        assert child.protocol_violation is None
    finally:
        await child.aclose()


async def test_a_child_without_its_channel_is_ended(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("voicethere.adapters.sandbox.confined_child._EXIT_GRACE_SECONDS", 0.05)
    child = await shared_sandbox.start(spec("sandbox_children:hang_up"))
    try:
        assert [frame async for frame in child.frames()] == []
        assert await child.wait() == ChildExit(signal=signal.SIGKILL)
        assert child.protocol_violation == "it closed its channel and went on running"
    finally:
        await child.aclose()


async def test_a_child_that_does_not_read_holds_up_its_sender_only(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec
) -> None:
    deaf = await shared_sandbox.start(spec("sandbox_children:deaf"))
    other = await shared_sandbox.start(spec("sandbox_children:echo"))
    try:
        assert await only_frame(deaf) == b"here"

        async def send_much() -> None:
            for _ in range(16):
                await deaf.send(bytes(1 << 20))

        sending = asyncio.create_task(send_much())
        frames = other.frames()
        await anext(frames)
        for number in range(50):
            await other.send(b"%d" % number)
            assert await anext(frames) == b"%d" % number
        assert not sending.done()
        deaf.kill()
        async with asyncio.timeout(30):
            await sending
    finally:
        await deaf.aclose()
        await other.aclose()


# ------------------------------------------------------------------ output


async def test_output_of_both_streams_arrives_in_lines(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    child = await shared_sandbox.start(spec("sandbox_children:speak"))
    try:
        await child.send("one\ntwo ü".encode())
        lines = await output_of(child)
        for stream in ("stdout", "stderr"):
            assert [line.text for line in lines if line.stream == stream] == ["one", "two ü"]
    finally:
        await child.aclose()


@pytest.mark.parametrize("width", [1, 80, 100_000], ids=["empty lines", "lines", "overlong lines"])
async def test_a_flood_is_dropped_visibly_and_blocks_nobody(
    shared_sandbox: ZygoteSandbox, spec: MakeSpec, width: int
) -> None:
    total = 6_000_000
    child = await shared_sandbox.start(spec("sandbox_children:flood"))
    try:
        await child.send(b"%d %d" % (total, width))
        assert await child.wait() == ChildExit(exit_status=0)  # though nobody reads its output yet
        lines = await output_of(child)
    finally:
        await child.aclose()
    notes = [line.text for line in lines if line.text.endswith("bytes of output dropped")]
    assert notes
    kept = sum(len(line.text.encode()) for line in lines)
    assert kept < 600_000
    if width == 80:
        dropped = sum(int(note.split()[1]) for note in notes)
        whole = [line for line in lines if line.text == "x" * 79]
        block = 80 * (65536 // 80)
        last = len("the end\n") * (lines[-1].text != "the end")
        assert dropped + 80 * len(whole) == total // block * block + last


async def test_output_survives_the_close(shared_sandbox: ZygoteSandbox, spec: MakeSpec) -> None:
    child = await shared_sandbox.start(spec("sandbox_children:end"))
    await child.send(b"raise")
    await child.wait()
    await child.aclose()
    assert (await output_of(child))[-1].text == "LookupError: nowhere to be found"
