"""A small disk of a host: a tmpfs that can be filled to the last byte, and emptied again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

DISK_BYTES = 12 * 1024 * 1024
_FILLER = "filler"


class Disk:
    """Mounted on `place`; unmounted by the janitor."""

    def __init__(self, place: Path, size: int = DISK_BYTES) -> None:
        self.place = place
        self._size = size
        self.full = False

    def mount(self) -> None:
        """Make it there.

        Raises:
            OSError: nothing can be mounted here.
        """
        self.place.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={self._size},mode=0700", "torture", str(self.place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"no small disk can be mounted: {done.stderr.strip()}")

    def fill(self) -> None:
        """Take what is free now, to the last byte."""
        self.full = True
        with (self.place / _FILLER).open("ab", buffering=0) as filler:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while filler.write(bytes(size)) == size:
                        pass
                except OSError:
                    continue

    def empty(self) -> None:
        """Give it back; harmless where nothing was taken."""
        (self.place / _FILLER).unlink(missing_ok=True)
        self.full = False

    @property
    def free_bytes(self) -> int:
        """What can still be written."""
        found = os.statvfs(self.place)
        return found.f_bavail * found.f_bsize
