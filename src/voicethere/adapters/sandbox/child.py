"""A forked child's way from the zygote's copy to a confined process that runs an entry point.

The order: take the three descriptors, close all others, read what to become, put up the walls, say so,
call the entry point, exit. Nothing here returns to the zygote's code. The benchmark takes the same way in
a fresh interpreter.
"""

from __future__ import annotations

import gc
import importlib
import os
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from voicethere.adapters.sandbox import kernel, landlock, protocol
from voicethere.adapters.sandbox.confinement import Ground, Inside, Wall, confine

OUT_OF_MEMORY_STATUS = 86
"""How a child exits whose entry point let a MemoryError escape."""

# Made before the fork: a child should touch as little as it can of the memory that it shares.
_order = msgspec.msgpack.Decoder(protocol.ChildOrder)
_answer = msgspec.msgpack.Encoder()

_CHANNEL = 3
_FIRST_CLOSED = 4
_OOM_SCORE = b"500"
_UMASK = 0o077


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What all children of one zygote share: its ground, the walls to put up, the opened read list."""

    ground: Ground
    walls: frozenset[Wall]
    grants: Sequence[landlock.Grant]


def _arrange_descriptors(channel: int, output: int, errors: int, keep: Sequence[int]) -> None:
    """Make them 3, 1 and 2, /dev/null 0, and close everything else but `keep` (all above 3)."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    # Lift them out of the way first: a source could sit on another one's target.
    lifted = [os.dup(descriptor) for descriptor in (nothing, output, errors, channel)]
    while min(lifted) <= _CHANNEL:
        lifted = [os.dup(descriptor) for descriptor in lifted]
    for target, descriptor in enumerate(lifted):
        os.dup2(descriptor, target, inheritable=target != _CHANNEL)
    start = _FIRST_CLOSED
    for kept in sorted(keep):
        os.closerange(start, kept)
        start = kept + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def _forget_the_zygote() -> None:
    """What a fork copies and two processes must not share."""
    gc.enable()
    if (tempfile := sys.modules.get("tempfile")) is not None:
        vars(tempfile)["tempdir"] = None
    # CPython reseeds its own generator; numpy does not, and all agents would draw the same numbers.
    if (numpy_random := sys.modules.get("numpy.random")) is not None:
        numpy_random.seed()


def _settle(order: protocol.ChildOrder) -> None:
    """Session, folder, environment (the zygote's is empty); be the first to go when the machine runs out
    of memory."""
    try:
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, _OOM_SCORE)
        os.close(score)
    except OSError:
        pass  # a preference, not a wall
    os.setsid()
    kernel.prctl(kernel.PR_SET_NAME, b"vt-child")
    os.umask(_UMASK)
    os.chdir(order.scratch)
    for name, value in {"HOME": order.scratch, "TMPDIR": order.scratch, **order.environment}.items():
        os.environ[name] = value


def _confine(order: protocol.ChildOrder, surroundings: Surroundings) -> None:
    grants = [
        *surroundings.grants,
        *(landlock.grant_reading(path) for path in order.read_only),
        landlock.grant_scratch(order.scratch),
    ]
    _settle(order)
    confine(Inside(ground=surroundings.ground, limits=order.limits, grants=grants), surroundings.walls)
    os.closerange(_FIRST_CLOSED, max((grant.descriptor for grant in grants), default=_CHANNEL) + 1)


def _call(entry_point: str) -> int:
    """The exit status that the entry point comes to."""
    try:
        module, _, function = entry_point.partition(":")
        getattr(importlib.import_module(module), function)(_CHANNEL)
    except SystemExit as leaving:
        if leaving.code is None:
            return 0
        if isinstance(leaving.code, int):
            return leaving.code & 0xFF
        print(leaving.code, file=sys.stderr)
        return 1
    except MemoryError:
        os.write(2, b"MemoryError: the agent's memory limit is used up\n")
        return OUT_OF_MEMORY_STATUS
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # nobody reads any more


def become(surroundings: Surroundings, channel: int, output: int, errors: int) -> NoReturn:
    """Turn this process into a confined child. Exits with the entry point's status, without running
    `atexit` and without waiting for threads."""
    status = 1
    try:
        _arrange_descriptors(channel, output, errors, [grant.descriptor for grant in surroundings.grants])
        _forget_the_zygote()
        talk = socket.socket(fileno=_CHANNEL)
        order = _order.decode(protocol.receive_frame(talk))
        problem = None
        try:
            _confine(order, surroundings)
        except (OSError, ValueError) as error:
            problem = str(error)
        talk.sendall(protocol.frame(_answer.encode(protocol.ChildAnswer(problem))))
        talk.detach()
        if problem is None:
            status = _call(order.entry_point)
    except EOFError:
        pass  # the runner changed its mind
    except BaseException:
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)
