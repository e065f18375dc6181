"""One process of the run: started on a host, hit, and started again as an operator's supervisor would.

It ends with the run, however that ends. Knows signals; does not know what the process does.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psutil

from tools.torture.journal import read

START_SECONDS = 60.0
RESTART_SECONDS = 0.5


class NotStarted(Exception):
    """A process did not come to serve; the words hold the end of what it said."""


class Held(msgspec.Struct, frozen=True):
    """How many descriptors a process has open, and how many processes are below it."""

    descriptors: int
    children: int


class Supervised:
    """`died` hears of an end that nobody asked for; the process is started again then.

    `said` is the first line of JSON that it wrote to standard output.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        logs: Path,
        died: Callable[[str, int], None],
        whole_family: bool = False,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        """`whole_family`: a kill or a pause hits its children, too (a database server's)."""
        self.name = name
        self.command = list(command)
        self.out = logs / f"{name}.out"
        self.log = logs / f"{name}.log"
        self._died = died
        self._whole_family = whole_family
        self._stop_signal = stop_signal
        self._process: asyncio.subprocess.Process | None = None
        self._watches: set[asyncio.Task[None]] = set()
        self._wanted = False

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int | None:
        """Of the process that runs now."""
        return self._process.pid if self._process is not None and self.running else None

    def held(self) -> Held:
        """What the process has of the machine now."""
        family = self._family()
        if not family:
            return Held(descriptors=0, children=0)
        try:
            return Held(descriptors=family[0].num_fds(), children=len(family[0].children(recursive=True)))
        except psutil.NoSuchProcess:
            return Held(descriptors=0, children=0)

    async def start(self) -> None:
        """Return when the process is there, whether it serves or not."""
        self._wanted = True
        with self.out.open("ab") as out:
            self._process = await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.PIPE,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        watch = asyncio.create_task(self._watch(self._process), name=f"watch {self.name}")
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def serves(self) -> dict[str, Any]:
        """What it says once it serves, the first time.

        Raises:
            NotStarted: it says nothing in time.
        """
        try:
            async with asyncio.timeout(START_SECONDS):
                while not (lines := read(self.out)):  # noqa: ASYNC110 - a file tells nobody
                    await asyncio.sleep(0.05)
        except TimeoutError:
            words = self.out.read_text(errors="replace")[-800:]
            raise NotStarted(f"{self.name} does not serve after {START_SECONDS:g} s: {words}") from None
        return lines[0]

    async def kill(self) -> None:
        """`kill -9`; it stays down until `start`."""
        self._wanted = False
        if self._process is not None:
            family = self._family()
            if self._whole_family:
                self._signal(family, signal.SIGSTOP)  # it must not start others meanwhile
                family = self._family()
            self._signal(family, signal.SIGKILL)
            await self._process.wait()
            psutil.wait_procs(family, timeout=5)

    def pause(self) -> None:
        """SIGSTOP."""
        self._signal(self._family(), signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT; harmless where it is not paused."""
        self._signal(self._family(), signal.SIGCONT)

    async def stop(self, seconds: float) -> bool:
        """Ask it to end; whether it did so in order, within `seconds`."""
        self._wanted = False
        process = self._process
        if process is None:
            return True
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(self._stop_signal)
        try:
            async with asyncio.timeout(seconds):
                status = await process.wait()
        except TimeoutError:
            await self.kill()
            return False
        return status == 0

    async def aclose(self) -> None:
        """End it by force, and the supervision."""
        watches = list(self._watches)
        for watch in watches:
            watch.cancel()
        if watches:
            await asyncio.wait(watches)
        await self.kill()

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        if self._wanted and process is self._process:
            self._died(self.name, status)
            await asyncio.sleep(RESTART_SECONDS)
            if self._wanted and process is self._process:
                await self.start()

    def _family(self) -> list[psutil.Process]:
        if self.pid is None:
            return []
        try:
            parent = psutil.Process(self.pid)
            return [parent, *(parent.children(recursive=True) if self._whole_family else [])]
        except psutil.NoSuchProcess:
            return []

    @staticmethod
    def _signal(family: Sequence[psutil.Process], number: signal.Signals) -> None:
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(number)
