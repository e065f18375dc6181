"""One file of the local spool: records framed with length and checksum, appended and synced, synchronous.

Knows bytes, the disk and who is alive. Knows nothing of queues, threads, or what a record means.

- A file belongs to the process that holds its lock (`flock`, which the kernel frees when the process dies).
  It is locked before it has its name, so nobody can take a live one for a dead one's.
- *Accepted* means: written and synced. A record that was being written when its process died is dropped.
- What is neither a record nor such a torn end is set aside in `NAME.damaged`, never skipped in silence.
- The first `reserve_bytes` are allocated ahead: a disk that fills up later still takes that much.
"""

from __future__ import annotations

import fcntl
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

SUFFIX = ".spool"
DAMAGED_SUFFIX = ".damaged"
MAX_RECORD_BYTES = 16 * 1024 * 1024
_MARK = b"\xff\xfeVS"
"""Begins a frame. No UTF-8 text, and so no record, contains it."""
_HEADER = struct.Struct(">4sII")  # mark, length of the payload, CRC-32 of the payload
_CHUNK = 1024 * 1024
_PAGE = 4096
_NAME = re.compile(r"\d+-\d+-\d+" + re.escape(SUFFIX))


class SpoolRecord(msgspec.Struct, frozen=True):
    """One record's payload, and where the next one begins."""

    data: bytes
    start: int
    end: int


class SpoolFile:
    """Made by `create` or `adopt`. Not for several threads at once. Methods raise OSError."""

    def __init__(self, path: Path, descriptor: int, *, reserve_bytes: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._reserve_bytes = reserve_bytes
        self.position = 0
        """Where the oldest record begins that is not forgotten."""
        self.end = 0
        """Where the next record goes."""
        self.count = 0
        """How many records are not forgotten."""

    @classmethod
    def create(cls, directory: Path, *, reserve_bytes: int) -> SpoolFile:
        """A new file of this process in `directory`, locked, with its space reserved."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Names sort by age; the last number keeps apart what one process makes within a millisecond.
        stamp = f"{time.time_ns() // 1_000_000:015d}-{os.getpid()}"
        for number in range(1000):
            path = directory / f"{stamp}-{number}{SUFFIX}"
            hidden = path.with_suffix(".new")
            try:
                descriptor = os.open(hidden, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except FileExistsError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if path.exists():
                    hidden.unlink()
                    os.close(descriptor)
                    continue
                if reserve_bytes:
                    os.posix_fallocate(descriptor, 0, reserve_bytes)
                os.fsync(descriptor)
                os.rename(hidden, path)
                _sync_directory(directory)
            except BaseException:
                os.close(descriptor)
                hidden.unlink(missing_ok=True)
                raise
            return cls(path, descriptor, reserve_bytes=reserve_bytes)
        raise FileExistsError(f"no free name for a spool file in {directory}")

    @classmethod
    def adopt(cls, path: Path) -> SpoolFile | None:
        """The file of a process that is dead; None where its process lives, or it is gone."""
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            file = cls(path, descriptor, reserve_bytes=0)
            if os.fstat(descriptor).st_nlink == 0:  # another one has adopted, emptied and removed it
                file.close()
                return None
            file.end = os.fstat(descriptor).st_size
            file.count = sum(1 for _ in file.records())
        except BaseException:
            os.close(descriptor)
            raise
        return file

    # ------------------------------------------------------------------ writing

    def append(self, payloads: Sequence[bytes]) -> None:
        """Durable when this returns; none of them is there when it raises."""
        frames = b"".join(_frame(payload) for payload in payloads)
        try:
            _write_all(self._descriptor, frames, self.end)
            os.fdatasync(self._descriptor)
        except OSError:
            self._wipe(self.end, self.end + len(frames))
            raise
        self.end += len(frames)
        self.count += len(payloads)

    @staticmethod
    def size_of(payloads: Sequence[bytes]) -> int:
        """Bytes that these records take in a file."""
        return sum(_HEADER.size + len(payload) for payload in payloads)

    def _wipe(self, start: int, end: int) -> None:
        """Make what was half written no record; best effort, and harmless where it fails: ids are stable."""
        try:
            if os.fstat(self._descriptor).st_size > max(start, self._reserve_bytes):
                os.ftruncate(self._descriptor, max(start, self._reserve_bytes))
            self._zero(start, min(end, self._reserve_bytes))
        except OSError:
            pass

    def _zero(self, start: int, end: int) -> None:
        while start < end:
            size = min(_CHUNK, end - start)
            _write_all(self._descriptor, bytes(size), start)
            start += size

    # ------------------------------------------------------------------ reading

    def records(self) -> Iterator[SpoolRecord]:
        """The records from `position` on. Between two there may be a gap that is no record."""
        at = self.position
        while (record := self._next(at)) is not None:
            yield record
            at = record.end

    def forget(self, record: SpoolRecord) -> None:
        """The oldest record is elsewhere for good."""
        self.position = record.end
        self.count -= 1

    def written(self, start: int, end: int) -> int:
        """Where the last byte that is not zero ends, between these two; `start` where there is none."""
        at = last = start
        for chunk in self._chunks(start, end):
            if content := len(chunk.rstrip(b"\0")):
                last = at + content
            at += len(chunk)
        return last

    def torn(self, start: int) -> bool:
        """Whether what follows `start` (and is no record) is the beginning of one that was never finished."""
        written = self.written(start, self.end)
        if written - start < _HEADER.size:
            return True
        mark, length, _ = _HEADER.unpack(os.pread(self._descriptor, _HEADER.size, start))
        # A payload is text and does not end in zeros.
        return bool(mark == _MARK) and length <= MAX_RECORD_BYTES and written < start + _HEADER.size + length

    def set_aside(self, start: int, end: int) -> Path:
        """Copy a damaged part to `NAME.damaged`, synced; nothing is forgotten by that."""
        path = self.path.with_name(self.path.name + DAMAGED_SUFFIX)
        descriptor = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            for chunk in self._chunks(start, end):
                _write_all(descriptor, chunk, None)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return path

    def _next(self, at: int) -> SpoolRecord | None:
        """The first whole record at `at` or behind it."""
        while at < self.end:
            record = self._record_at(at)
            if record is not None:
                return record
            found = self._find_mark(at + 1)
            if found is None:
                return None
            at = found
        return None

    def _record_at(self, at: int) -> SpoolRecord | None:
        header = os.pread(self._descriptor, _HEADER.size, at)
        if len(header) < _HEADER.size:
            return None
        mark, length, checksum = _HEADER.unpack(header)
        end = at + _HEADER.size + length
        if mark != _MARK or length > MAX_RECORD_BYTES or end > self.end:
            return None
        data = b"".join(self._chunks(at + _HEADER.size, end))
        if len(data) != length or zlib.crc32(data) != checksum:
            return None
        return SpoolRecord(data, at, end)

    def _find_mark(self, at: int) -> int | None:
        while at < self.end:
            chunk = os.pread(self._descriptor, min(_CHUNK, self.end - at), at)
            if (offset := chunk.find(_MARK)) >= 0:
                return at + offset
            if len(chunk) < len(_MARK):
                return None
            at += len(chunk) - len(_MARK) + 1
        return None

    def _chunks(self, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            chunk = os.pread(self._descriptor, min(_CHUNK, end - start), start)
            if not chunk:
                return
            yield chunk
            start += len(chunk)

    # ------------------------------------------------------------------ ends

    def clear(self) -> None:
        """Forget everything, and keep the space that is reserved."""
        # The beginning first: what a crash leaves behind it comes again, and changes nothing.
        self._zero(0, min(_PAGE, self.end))
        os.fdatasync(self._descriptor)
        self._zero(_PAGE, min(self.end, self._reserve_bytes))
        if os.fstat(self._descriptor).st_size > self._reserve_bytes:
            os.ftruncate(self._descriptor, self._reserve_bytes)
        os.fdatasync(self._descriptor)
        self.position = self.end = self.count = 0

    def remove(self) -> None:
        """Delete the file; nothing of it is needed any more."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Let go of the file; what is in it stays, for whoever adopts it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def left_behind(directory: Path) -> list[Path]:
    """The spool files in `directory`, oldest first; whose process is alive is for `adopt` to say."""
    try:
        names = sorted(entry.name for entry in directory.iterdir() if _NAME.fullmatch(entry.name))
    except FileNotFoundError:
        return []
    return [directory / name for name in names]


def _frame(payload: bytes) -> bytes:
    if len(payload) > MAX_RECORD_BYTES:
        raise OSError(f"a record of {len(payload)} bytes; at most {MAX_RECORD_BYTES} are taken")
    return _HEADER.pack(_MARK, len(payload), zlib.crc32(payload)) + payload


def _write_all(descriptor: int, data: bytes, at: int | None) -> None:
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view) if at is None else os.pwrite(descriptor, view, at)
        view = view[written:]
        if at is not None:
            at += written


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
