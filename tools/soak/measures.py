"""One look at everything that could grow: processes, files, rows, and the soak's own clients.

A sample is a flat mapping of `what/unit` to a number, with the seconds since the start as `seconds`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil

from tools.soak.target import Target

Sample = dict[str, float]

MEGABYTE = 1024 * 1024


class Observer:
    """Takes samples and appends them to a file: the soak's own memory does not grow with its length."""

    def __init__(self, target: Target, file: Path) -> None:
        self._target = target
        self._file = file
        self._began = time.monotonic()
        self._self = psutil.Process()
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self._began

    def look(self, *, at_rest: bool, driven: dict[str, float]) -> Sample:
        """A sample, which is also written. `driven` counts what was done so far. Blocks: use a thread."""
        sample = {"seconds": round(self.seconds, 2), "at_rest": float(at_rest), **driven, **self.peek()}
        with self._file.open("ab") as file:
            file.write(msgspec.json.encode(sample) + b"\n")
        return sample

    def peek(self) -> Sample:
        """What is held now; not written. Blocks: use a thread."""
        sample: Sample = {}
        for role, processes in self._target.processes().items():
            sample.update(_held(role, processes))
        sample.update(_held("clients", [self._self]))
        sample.update(self._target.stored())
        return sample

    def samples(self) -> list[Sample]:
        """All that were taken."""
        return [msgspec.json.decode(line, type=Sample) for line in self._file.read_bytes().splitlines()]


def _held(role: str, processes: Sequence[psutil.Process]) -> Sample:
    memory, descriptors, threads, alive = 0, 0, 0, 0
    for process in processes:
        try:
            with process.oneshot():
                pss, fds, running = (
                    process.memory_full_info().pss,
                    process.num_fds(),
                    process.num_threads(),
                )
        except psutil.Error:
            continue  # it has just ended
        memory += pss
        descriptors += fds
        threads += running
        alive += 1
    return {
        f"{role}/megabytes": round(memory / MEGABYTE, 3),
        f"{role}/descriptors": descriptors,
        f"{role}/threads": threads,
        f"{role}/processes": alive,
    }
