"""Whether the kernel killed a process for lack of memory, as far as its counters tell."""

from __future__ import annotations

from pathlib import Path


def _counter_files() -> list[Path]:
    """This process's own control group first: the machine's count includes everybody else's."""
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        groups = []
    own = [line.removeprefix("0::").lstrip("/") for line in groups if line.startswith("0::")]
    return [*(Path("/sys/fs/cgroup") / group / "memory.events" for group in own), Path("/proc/vmstat")]


def _count(files: list[Path]) -> int | None:
    for file in files:
        try:
            for line in file.read_text().splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
        except (OSError, ValueError):
            continue
    return None


class OutOfMemoryKills:
    """Counts the kernel's out-of-memory kills and explains each with one unexplained SIGKILL.

    The kernel counts before it kills, so the count is there when the exit is seen. Of two processes
    killed at the same moment, one by the kernel and one by somebody else, the wrong one may be named.
    """

    def __init__(self) -> None:
        self._files = _counter_files()
        self._explained = _count(self._files) or 0

    def explains_a_kill(self) -> bool:
        """Whether there was such a kill that did not explain another one yet."""
        count = _count(self._files)
        if count is None or count <= self._explained:
            return False
        self._explained += 1
        return True
