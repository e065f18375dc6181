"""One role's process: started, killed, started again. Knows the command line, not what a role does."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

START_SECONDS = 60.0
END_SECONDS = 60.0


class RoleFailed(Exception):
    """A role did not start, or did not end; the words say where its log is, and its end."""


def command(*words: str) -> list[str]:
    """`voicethere` with these words, as this interpreter runs it."""
    return [sys.executable, "-m", "voicethere.cli.main", *words]


class Role:
    """One role's process. It ends with whoever started it, however that ends.

    `said` is what it printed once it served; `options` are those of `voicethere serve KIND`, and stay for the
    next start, which is on the same port.
    """

    def __init__(
        self, kind: str, data_dir: str, *, name: str | None = None, options: Sequence[str] = ()
    ) -> None:
        self.kind = kind
        self.name = name or kind
        self.data_dir = data_dir
        self.options = tuple(options)
        self.said: dict[str, str] = {}
        self._process: asyncio.subprocess.Process | None = None

    @property
    def log_file(self) -> str:
        """Where it logs; a later start appends."""
        return f"{self.data_dir}/{self.name}.log"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def start(self, *options: str) -> None:
        """Return once it serves.

        Raises:
            RoleFailed: it ended instead.
            TimeoutError: it did neither.
        """
        self.options = options or self.options
        again = [f"--port={self.port}"] if self.said.get("base_url") else []
        self._process = await asyncio.create_subprocess_exec(
            *command("serve", self.kind),
            f"--data-dir={self.data_dir}",
            f"--log-file={self.log_file}",
            "--json",
            "--until-stdin-closes",
            *self.options,
            *again,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(START_SECONDS):
            line = await self._process.stdout.readline()
        if not line:
            _, problem = await self._process.communicate()
            raise RoleFailed(
                f"{self.name} did not start (its log: {self.log_file}): {problem.decode()[-500:]}"
            )
        self.said = msgspec.json.decode(line)

    @property
    def port(self) -> int:
        """Where it serves HTTP."""
        return int(self.said["base_url"].rpartition(":")[2])

    def send_signal(self, number: int) -> None:
        """Harmless when it has ended."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Its exit status."""
        self.send_signal(number)
        return await self.ended()

    async def ended(self) -> int:
        """Its exit status, once it has ended by itself.

        Raises:
            RoleFailed: it has not within a minute; it is killed then.
        """
        assert self._process is not None
        assert self._process.stdin is not None
        # Not `communicate`: that closes the standard input, and who has lost its starter does not drain.
        try:
            async with asyncio.timeout(END_SECONDS):
                return await self._process.wait()
        except TimeoutError:
            self.send_signal(signal.SIGKILL)
            await self._process.wait()
            log = await asyncio.to_thread(Path(self.log_file).read_text, errors="replace")
            raise RoleFailed(
                f"{self.name} did not end within {END_SECONDS:g} s; the end of its log: {log[-2000:]}"
            ) from None
        finally:
            self._process.stdin.close()
