"""`ZygoteSandbox`: the sandbox port on a zygote, Landlock, seccomp and resource limits.

It puts the parts together and owns what a child takes on the runner's side. It is handed an entry point
and modules to preload, and knows nothing of agents.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from voicethere.adapters.sandbox import protocol
from voicethere.adapters.sandbox.confined_child import ConfinedChild, open_channel, open_output
from voicethere.adapters.sandbox.confinement import SECOND_WALLS, WallState
from voicethere.adapters.sandbox.limits import Limits
from voicethere.adapters.sandbox.oom import OutOfMemoryKills
from voicethere.adapters.sandbox.readable import is_beneath
from voicethere.adapters.sandbox.scratch import ScratchRoot
from voicethere.adapters.sandbox.zygote_process import ZygoteProcess, probe_in_a_process
from voicethere.core.ports import ChildSpec, Mechanism, SandboxUnavailable

_FORK_SECONDS = 10.0
_CONFINE_SECONDS = 10.0


class ZygoteSandbox:
    """Forks confined children from one preloaded process.

    A child gets `HOME` and `TMPDIR` (its scratch folder, which is also its working folder) beside the
    environment of its `ChildSpec`, unless that names them. All children share one zygote; when it dies, its
    children die with it and the next `start` makes a new one.

    Use it on one event loop, and open it from the thread that lives as long as the process: the zygote
    is killed when that thread ends.

    Example:
        >>> sandbox = ZygoteSandbox(preload=["asyncio"], scratch_root=Path("scratch"))
        >>> child = await sandbox.start(ChildSpec(entry_point="m:f", environment={}, read_only=[]))
        >>> async for frame in child.frames(): ...
        >>> await child.aclose()
        >>> await sandbox.aclose()
    """

    def __init__(
        self,
        *,
        preload: Sequence[str],
        scratch_root: Path,
        strict: bool = False,
        import_from: Sequence[Path] = (),
    ) -> None:
        """`preload` are modules that must start no thread; `import_from` are folders added to the children's
        `sys.path` (readable by every child). `strict` refuses to start where a mechanism is missing that
        nothing else stands in for."""
        self._preload = tuple(preload)
        self._import_from = tuple(folder.resolve() for folder in import_from)
        self._scratch_root = scratch_root.resolve()
        self._scratch = ScratchRoot(self._scratch_root)
        self._strict = strict
        self._opening = asyncio.Lock()
        self._opened = False
        self._closed = False
        self._zygote: ZygoteProcess | None = None
        self._walls: Sequence[WallState] | None = None
        self._children: set[ConfinedChild] = set()
        self._out_of_memory_kills = OutOfMemoryKills()

    async def open(self) -> None:
        """Remove what a killed runner left behind, and start the zygote. `start` does it otherwise.

        Raises:
            SandboxUnavailable: no child could be started here; the words say why.
        """
        await self._running_zygote()

    async def start(self, spec: ChildSpec) -> ConfinedChild:
        """A new child, confined before its entry point runs.

        Raises:
            SandboxUnavailable: it could not be started or not be confined.
        """
        if not all(spec.entry_point.partition(":")):
            raise ValueError(f"the entry point is {spec.entry_point!r}; it must read module:function")
        zygote = await self._running_zygote()
        try:
            child, scratch = await self._fork(zygote)
        except OSError as error:
            raise SandboxUnavailable(f"a child could not be started: {error}") from error
        try:
            order = protocol.ChildOrder(
                entry_point=spec.entry_point,
                environment=dict(spec.environment),
                read_only=[str(path.absolute()) for path in spec.read_only],
                scratch=str(scratch),
                limits=msgspec.convert(msgspec.to_builtins(spec.limits), Limits),
            )
            await child.order(order, _CONFINE_SECONDS)
        except BaseException:
            await child.aclose()
            raise
        return child

    def mechanisms(self) -> Sequence[Mechanism]:
        """What confines children here, and what is missing. Before `open`, a process finds it out (0.1 s)."""
        if self._walls is None:
            self._walls = probe_in_a_process()
        return [
            Mechanism(name=state.wall, available=state.available, note=_note(state)) for state in self._walls
        ]

    async def aclose(self) -> None:
        """End every child and the zygote, and remove the scratch folders."""
        self._closed = True
        async with self._opening:
            await asyncio.gather(*(child.aclose() for child in list(self._children)))
            if self._zygote is not None:
                await self._zygote.aclose()
            await self._scratch.aclose()

    @property
    def zygote_pid(self) -> int | None:
        """Of the running zygote, for those who watch processes."""
        return self._zygote.pid if self._zygote is not None and self._zygote.alive else None

    async def _running_zygote(self) -> ZygoteProcess:
        async with self._opening:
            if self._closed:
                raise SandboxUnavailable("the sandbox is closed")
            if not self._opened:
                try:
                    await self._scratch.open()
                except OSError as error:
                    raise SandboxUnavailable(f"no scratch folder can be made: {error}") from error
                self._opened = True
            if self._zygote is None or not self._zygote.alive:
                if self._zygote is not None:
                    await self._zygote.aclose()
                    self._zygote = None
                zygote = await ZygoteProcess.spawn(preload=self._preload, import_from=self._import_from)
                try:
                    self._check(zygote.ready)
                except SandboxUnavailable:
                    await zygote.aclose()
                    raise
                self._zygote = zygote
            return self._zygote

    def _check(self, ready: protocol.Ready) -> None:
        self._walls = ready.walls
        missing = [state for state in ready.walls if not state.available and state.wall not in SECOND_WALLS]
        if self._strict and missing:
            words = "; ".join(f"{state.wall}: {state.note}" for state in missing)
            raise SandboxUnavailable(f"strict mode, and this machine cannot confine children fully: {words}")
        for path in ready.readable:
            if is_beneath(str(self._scratch_root), path):
                raise SandboxUnavailable(
                    f"the scratch folder {self._scratch_root} lies in {path}, which every child may read; "
                    "choose one elsewhere"
                )

    async def _fork(self, zygote: ZygoteProcess) -> tuple[ConfinedChild, Path]:
        async with AsyncExitStack() as undo:
            scratch = self._scratch.new()
            undo.push_async_callback(self._scratch.remove, scratch)
            (reader, writer), their_channel = await open_channel()
            undo.callback(writer.transport.abort)
            with their_channel:
                output, their_output = open_output()
                undo.callback(output.close)
                try:
                    async with asyncio.timeout(_FORK_SECONDS):
                        process = await zygote.fork(their_channel, *their_output)
                except TimeoutError as error:
                    raise SandboxUnavailable(
                        f"the zygote did not fork within {_FORK_SECONDS:.0f} s"
                    ) from error
                finally:
                    for descriptor in their_output:
                        os.close(descriptor)

            async def release() -> None:
                self._children.discard(child)
                await self._scratch.remove(scratch)

            child = ConfinedChild(
                process,
                (reader, writer),
                output,
                out_of_memory_kills=self._out_of_memory_kills,
                release=release,
            )
            self._children.add(child)
            undo.pop_all()  # from here on they are the child's to release
            return child, scratch


def _note(state: WallState) -> str:
    if not state.available and state.wall in SECOND_WALLS:
        return f"{state.note} (a second wall: seccomp denies the same)"
    return state.note
