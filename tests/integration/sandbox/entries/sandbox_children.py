"""Entry points of ordinary and of ill-mannered children."""

from __future__ import annotations

import asyncio
import ctypes
import mimetypes
import os
import random
import resource
import signal
import socket
import struct
import sys
import tempfile
import threading
import zoneinfo
from pathlib import Path

from sandbox_framing import Channel


def echo(fd: int) -> None:
    """Sends its pid, then every frame back, until the channel closes."""
    channel = Channel(fd)
    channel.send(str(os.getpid()).encode())
    try:
        while True:
            channel.send(channel.receive())
    except EOFError:
        pass


def deaf(fd: int) -> None:
    """Says that it is there, and never reads."""
    channel = Channel(fd)
    channel.send(b"here")
    signal.pause()


def surroundings(fd: int) -> None:
    """Everything that a child can find out about itself."""
    libc = ctypes.CDLL(None)
    environ = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, "environ")
    real = []
    while environ and environ[len(real)]:
        real.append(environ[len(real)].decode())
    descriptors = []
    for number in range(1024):
        try:
            os.fstat(number)
        except OSError:
            continue
        descriptors.append(number)
    Channel(fd).send_json(
        {
            "environ": dict(os.environ),
            "real_environ": real,
            "descriptors": descriptors,
            "cwd": os.getcwd(),
            "umask": os.umask(0),
            "session": os.getsid(0) == os.getpid(),
            "group": os.getpgid(0) == os.getpid(),
            "limits": {
                name: resource.getrlimit(getattr(resource, name))
                for name in (
                    "RLIMIT_AS",
                    "RLIMIT_CPU",
                    "RLIMIT_NOFILE",
                    "RLIMIT_NPROC",
                    "RLIMIT_FSIZE",
                    "RLIMIT_CORE",
                )
            },
            "dumpable": libc.prctl(3, 0, 0, 0, 0),
            "no_new_privs": libc.prctl(39, 0, 0, 0, 0),
            "capabilities_in_bounding_set": [n for n in range(64) if libc.prctl(23, n, 0, 0, 0) == 1],
            "sigint_ignored": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
            "threads": threading.active_count(),
            "draw": random.random(),
        }
    )


def at_work(fd: int) -> None:
    """What agents legitimately do; ends with `fine` only if all of it works."""
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("a")
    os.rename("notes/a.txt", "b.txt")
    assert Path("b.txt").read_text() == "a"
    os.unlink("b.txt")
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile() as file:
        assert folder.startswith(os.getcwd())
        assert file.name.startswith(os.getcwd())
    assert mimetypes.guess_type("x.png")[0] == "image/png"
    assert zoneinfo.ZoneInfo("Europe/Berlin").key == "Europe/Berlin"
    with open("/dev/null", "w") as sink:
        sink.write("x")
    import decimal
    import sqlite3
    import ssl

    assert decimal.Decimal(1)
    assert ssl.create_default_context()
    with sqlite3.connect("data.db") as database:
        database.execute("create table t (x)")
    database.close()
    os.kill(os.getpid(), 0)
    heard = []
    signal.signal(signal.SIGUSR1, lambda *_: heard.append(1))
    signal.raise_signal(signal.SIGUSR1)
    assert heard

    async def tasks() -> int:
        first, second = socket.socketpair()
        reader, _ = await asyncio.open_unix_connection(sock=first)
        with second:
            second.send(b"over the pair\n")
            assert await reader.readline() == b"over the pair\n"
        await asyncio.sleep(0.001)
        first.close()
        return sum(await asyncio.gather(*(asyncio.to_thread(int, n) for n in range(8))))

    assert asyncio.run(tasks()) == 28
    Channel(fd).send(b"fine")


def numerical(fd: int) -> None:
    """numpy imported behind the walls, with its threads."""
    import numpy

    matrix = numpy.ones((200, 200))
    Channel(fd).send_json({"sum": float((matrix @ matrix).sum()), "draw": float(numpy.random.random())})


def numerical_preloaded(fd: int) -> None:
    if "numpy" not in sys.modules:
        raise RuntimeError("numpy was to be preloaded")
    numerical(fd)


def end(fd: int) -> None:
    """Ends in the way that it is told."""
    way = Channel(fd).receive().decode()
    if way == "return":
        return
    if way == "exit 3":
        sys.exit(3)
    if way == "exit words":
        sys.exit("these were my last words")
    if way == "_exit 7":
        os._exit(7)
    if way == "raise":
        raise LookupError("nowhere to be found")
    if way == "memory":
        bytearray(1 << 30)
    if way == "abort":
        os.abort()
    if way == "segfault":
        ctypes.string_at(0)
    if way == "terminate":
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    if way == "spin":
        while True:
            pass


def speak(fd: int) -> None:
    """Writes what it is sent to both streams, at the end without a line end."""
    text = Channel(fd).receive().decode()
    print(text)
    print(text, file=sys.stderr, end="")


def flood(fd: int) -> None:
    """Writes as many bytes of lines as it is told; the second word is the length of a line."""
    total, width = map(int, Channel(fd).receive().split())
    line = b"x" * (width - 1) + b"\n"
    block = line * max(1, 65536 // width)
    for _ in range(total // len(block)):
        view = memoryview(block)
        while view:
            view = view[os.write(1, view) :]
    os.write(1, b"the end\n")


def huge_frame(fd: int) -> None:
    channel = Channel(fd)
    channel.send_raw(struct.pack(">I", 0x7FFFFFFF) + bytes(1024))
    signal.pause()


def half_a_frame(fd: int) -> None:
    Channel(fd).send_raw(struct.pack(">I", 1000) + bytes(10))


def hang_up(fd: int) -> None:
    """Closes its channel and goes on."""
    os.close(fd)
    signal.pause()


def big_frames(fd: int) -> None:
    """Sends frames of the sizes that it is told."""
    channel = Channel(fd)
    for size in channel.receive_json():
        channel.send(bytes(size))


def clutter(fd: int) -> None:
    """Leaves what is hard to remove: unreadable folders, and more levels than any path may have."""
    os.mkdir("closed")
    Path("closed/file").write_text("x")
    os.mkdir("closed/inner")
    os.umask(0o777)
    os.mkdir("no-rights")
    os.umask(0o222)
    os.mkdir("no-writing")
    os.umask(0o077)
    for _ in range(1200):
        os.mkdir("a-long-name")
        os.chdir("a-long-name")
    Path("leaf").write_text("x")
    channel = Channel(fd)
    channel.send(b"done")
    signal.pause()
