"""Removes what a run has made, also where the run itself was killed: `python -m tools.torture.janitor`.

Started by the run as a process of its own, it waits until the run has gone (its standard input closes), then
ends every process in the run's namespaces, removes those, unmounts the small disks and deletes the folder.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tools.torture.network import NoNetwork, namespaces_of, pids_in, remove_namespace

_ROUNDS = 50


def clean(prefix: str, folder: Path, *, keep: bool) -> None:
    """All of it; harmless where nothing is left. `keep` leaves the folder, without its disks."""
    for name in namespaces_of(prefix):
        _end_all(name)
        remove_namespace(name)
    for mount in sorted(_mounts_below(folder), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


def _end_all(namespace: str) -> None:
    for _ in range(_ROUNDS):
        pids = pids_in(namespace)
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _mounts_below(folder: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{folder}/")]


def main() -> None:
    """Wait for the end of standard input, then clean up."""
    parser = argparse.ArgumentParser(description="Removes what a torture run has made, once that has gone.")
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    # Ctrl-C is for the run: it ends, and then it is our turn.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdin.read()
    try:
        clean(arguments.prefix, arguments.folder, keep=arguments.keep)
    except NoNetwork as problem:
        sys.exit(f"not everything was removed: {problem}")


if __name__ == "__main__":
    main()
