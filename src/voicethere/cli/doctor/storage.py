"""The data directory, the database and the error queue: tried in a folder of the doctor's own beside them.

What is there already is only looked at.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from voicethere.cli.doctor.findings import Finding, failed, in_thread, ok, warning
from voicethere.cli.layout import DataLayout

_MIB = 1024 * 1024
_FEW_MIB = 1024
_TOO_FEW_MIB = 100
_SLOW_MILLISECONDS = 250.0
_OTHER_FOLDER = "Name another folder with `voicethere up --data-dir`."


@contextlib.contextmanager
def _trial_folder(layout: DataLayout) -> Iterator[Path]:
    """A folder on the data directory's file system, for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=nearest_folder(layout.root)) as folder:
        yield Path(folder)


def nearest_folder(path: Path) -> Path:
    """`path`, or the folder above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


async def data_directory(layout: DataLayout) -> Finding:
    """Can it be written, is there room, is it private?"""
    return await in_thread(lambda: _look_at_data_directory(layout))


def _look_at_data_directory(layout: DataLayout) -> Finding:
    root = layout.root
    if root.exists() and not root.is_dir():
        return failed(f"{root} is a file", _OTHER_FOLDER)
    try:
        with _trial_folder(layout) as folder:
            (folder / "file").write_bytes(b"x" * 4096)
    except OSError as error:
        return failed(
            f"{nearest_folder(root)} cannot be written: {error.strerror or error}",
            f"Make it writable for this user. {_OTHER_FOLDER}",
        )
    free = shutil.disk_usage(nearest_folder(root)).free // _MIB
    private = not (root.is_dir() and root.stat().st_mode & 0o077)
    return judge_data_directory(root, free_mib=free, there=root.is_dir(), private=private)


def judge_data_directory(root: Path, *, free_mib: int, there: bool, private: bool) -> Finding:
    """`there`: it exists already; `private`: nobody else may look into it."""
    found = f"{root} {'can be written' if there else 'can be made'}, {free_mib:,} MiB free"
    if free_mib < _TOO_FEW_MIB:
        return failed(found, f"Free some space: errors and bundles are kept there. {_OTHER_FOLDER}")
    if free_mib < _FEW_MIB:
        return warning(found, "Free some space: errors and bundles are kept there.")
    if not private:
        return warning(f"{found}; other users may look into it", f"chmod 700 {root}")
    return ok(found)


async def database(layout: DataLayout) -> Finding:
    """SQLite, its log mode, and a durable write, on the data directory's disk."""
    from voicethere.adapters.store import Store

    existing = await in_thread(lambda: _look_at_database(layout.database))
    if existing is not None and existing.startswith("!"):
        return failed(existing[1:], "Move the file away, or restore it from a backup.")
    with _trial_folder(layout) as folder:
        path = folder / "voicethere.db"
        store = await Store.open(f"sqlite:///{path}")
        try:
            began = time.monotonic()
            await store.ensure_default_org()
            milliseconds = (time.monotonic() - began) * 1000
            mode = await in_thread(lambda: _journal_mode(path))
        finally:
            await store.aclose()
    return judge_database(existing, mode=mode, milliseconds=milliseconds)


def judge_database(existing: str | None, *, mode: str, milliseconds: float) -> Finding:
    """`existing` says what the platform's own file is like; None where there is none yet."""
    found = f"SQLite {sqlite3.sqlite_version}, journal {mode}, a durable write took {milliseconds:.1f} ms"
    if existing is not None:
        found = f"{found}; {existing}"
    if mode != "wal":
        return failed(
            found, f"Write-ahead logging does not work on this disk (a network file system?). {_OTHER_FOLDER}"
        )
    return _slow_disk(found) if milliseconds > _SLOW_MILLISECONDS else ok(found)


async def queue(layout: DataLayout) -> Finding:
    """The error queue: an item through it durably, and what waits in the real one."""
    from voicethere.adapters.queue import EmbeddedErrorQueue
    from voicethere.core.ports import QueueUnavailable
    from voicethere.wire.queue import SessionEndedItem

    item = SessionEndedItem(
        session_id="doctor",
        project_id="doctor",
        end_reason="error",
        failed=False,
        ended_at="2026-01-01T00:00:00.000Z",
    )
    with _trial_folder(layout) as folder:
        trial = EmbeddedErrorQueue(folder / "queue.db")
        try:
            began = time.monotonic()
            await trial.put([item])
            milliseconds = (time.monotonic() - began) * 1000
            (delivery,) = await trial.receive(limit=1, wait_seconds=5.0)
            await trial.acknowledge([delivery.position])
            came_back = delivery.item == item
        except QueueUnavailable as problem:
            return failed(str(problem), _OTHER_FOLDER)
        finally:
            await trial.aclose()
    if not came_back:
        return failed("an item came back changed", "Please report this.")
    found = f"a durable item took {milliseconds:.1f} ms"
    if layout.queue.is_file():
        real = EmbeddedErrorQueue(layout.queue)
        try:
            waiting = await real.depth()
        except QueueUnavailable as problem:
            return failed(
                f"{layout.queue}: {problem}", "Move the file away; `voicethere up` makes a new one."
            )
        finally:
            await real.aclose()
        found = f"{found}; {waiting} wait in {layout.queue.name} to be stored"
    damaged = await in_thread(lambda: _damaged_pieces(layout))
    if damaged:
        return warning(
            f"{found}; set aside as damaged: {', '.join(str(path) for path in damaged)}",
            "These pieces of the local spool could not be read (a failing disk, perhaps): they "
            "hold session errors as JSON. Look at them, and move them away.",
        )
    return _slow_disk(found) if milliseconds > _SLOW_MILLISECONDS else ok(found)


def _damaged_pieces(layout: DataLayout) -> list[Path]:
    from voicethere.adapters.queue.spool_file import DAMAGED_SUFFIX

    return [
        path for spool in (layout.spool, layout.sessions_spool) for path in spool.glob(f"*{DAMAGED_SUFFIX}")
    ]


def _slow_disk(found: str) -> Finding:
    return warning(found, f"The disk is slow: sessions end later for it. {_OTHER_FOLDER}")


def _look_at_database(path: Path) -> str | None:
    """What the file is like; with a `!` in front where it cannot be used."""
    if not path.is_file():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2.0)) as found:
            found.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as error:
        return f"!{path} cannot be read: {error}"
    return f"{path.name} has {path.stat().st_size // 1024:,} KiB"


def _journal_mode(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path, timeout=2.0)) as connection:
        return str(connection.execute("PRAGMA journal_mode").fetchone()[0])
