"""The ports: what the roles need of the world, said without naming who gives it.

An adapter (`voicethere.adapters.*`) implements a port; a fake (`voicethere.testing`) too; all of them
pass the port's contract tests. Audio is always signed 16-bit little-endian mono PCM.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import msgspec

from voicethere.wire.queue import QueueItem
from voicethere.wire.relay import ServiceNotice, ToRunner, ToService

# ------------------------------------------------------------------ time


class Clock(Protocol):
    """Both kinds of time. Tests pass one that they move themselves."""

    def now(self) -> float:
        """Seconds since the epoch (for what people read)."""

    def monotonic(self) -> float:
        """Seconds of a clock that never jumps (for timers)."""


# ------------------------------------------------------------------ the error queue


class Delivery(msgspec.Struct, frozen=True):
    """One item received. `item` is None where `data` is not one (poison): the worker dead-letters it."""

    position: str
    data: bytes
    item: QueueItem | None
    problem: str | None = None


class QueueUnavailable(Exception):
    """The queue cannot take or give items now; nothing was accepted."""


class ErrorQueuePort(Protocol):
    """The `session-errors` queue: delivered at least once, and to one consumer in the order of each producer.

    Several consumers have it by turns (embedded) or share the items (Redis); what they share they may store
    in another order, but for this: the end of a session is not given out while another consumer holds
    anything that was put before it.
    """

    async def put(self, items: Sequence[QueueItem]) -> None:
        """Return once all items are durable.

        Raises:
            QueueUnavailable: none was accepted.
        """

    async def receive(self, *, limit: int, wait_seconds: float) -> Sequence[Delivery]:
        """Up to `limit` items that are not acknowledged yet, oldest first; empty after `wait_seconds`."""

    async def acknowledge(self, positions: Sequence[str]) -> None:
        """Forget these items: they are committed elsewhere."""

    async def depth(self) -> int:
        """How many items are not acknowledged."""

    async def oldest_seconds(self) -> float | None:
        """How long the oldest item that is not acknowledged has been in the queue; None where it is empty.

        By the queue's own clock: what was put longer ago than this is committed.
        """

    async def aclose(self) -> None:
        """Release what the adapter holds; what was put stays."""


# ------------------------------------------------------------------ the sandbox


class SandboxLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What one child may use."""

    memory_bytes: int = 512 * 1024 * 1024
    cpu_seconds: int = 3600
    open_files: int = 128
    processes: int = 64
    file_bytes: int = 16 * 1024 * 1024


class ChildSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. `entry_point` is `module:function`, called in the confined child as
    `function(channel_fd: int)`; `channel_fd` is a stream socket of frames (see `wire.ipc`).

    `environment` is the whole of `os.environ`; `read_only` are the paths it may read besides the
    interpreter and its libraries.
    """

    entry_point: str
    environment: Mapping[str, str]
    read_only: Sequence[Path]
    limits: SandboxLimits = SandboxLimits()


class ChildExit(msgspec.Struct, frozen=True, kw_only=True):
    """How a child ended: exactly one of `exit_status` and `signal` is set."""

    exit_status: int | None = None
    signal: int | None = None
    out_of_memory: bool = False


class OutputLine(msgspec.Struct, frozen=True):
    """One line that the child wrote to `stdout` or `stderr` (bounded; the rest is dropped and counted)."""

    stream: str
    text: str


class ChildProcess(Protocol):
    """A running, confined child."""

    @property
    def pid(self) -> int: ...

    async def send(self, frame: bytes) -> None:
        """Send one frame's payload; waits for room. A child that is gone swallows it silently."""

    def frames(self) -> AsyncIterator[bytes]:
        """Frames from the child, until it is gone. A frame past `MAX_FRAME_BYTES` kills the child."""

    def output(self) -> AsyncIterator[OutputLine]:
        """Lines of standard output and error, until both are closed."""

    async def wait(self) -> ChildExit:
        """Return when the process has ended. May be awaited by several."""

    def kill(self) -> None:
        """SIGKILL, now; harmless when it has ended."""

    async def aclose(self) -> None:
        """Kill if need be, reap, close every descriptor, remove the scratch folder."""


class SandboxUnavailable(Exception):
    """No child can be started; the words say which mechanism is missing or what failed."""


class Mechanism(msgspec.Struct, frozen=True, kw_only=True):
    """One confinement mechanism of this machine."""

    name: str
    available: bool
    note: str = ""


class SandboxPort(Protocol):
    """Starts confined children."""

    async def start(self, spec: ChildSpec) -> ChildProcess:
        """Raises SandboxUnavailable where it cannot."""

    def mechanisms(self) -> Sequence[Mechanism]:
        """What confines children here, and what is missing."""

    async def aclose(self) -> None:
        """End every child and the machinery that starts them."""


# ------------------------------------------------------------------ speech


class SpeechProviderError(Exception):
    """A speech provider failed; the words say which and how. A session event, never a crash."""


class Synthesizer(Protocol):
    """Text to speech."""

    @property
    def sample_rate(self) -> int:
        """Hz of what `synthesize` yields."""

    def synthesize(self, text: str) -> AsyncIterator[bytes]:
        """PCM chunks as they are made. Closing the iterator cancels.

        Raises:
            SpeechProviderError: the provider failed.
        """

    async def aclose(self) -> None: ...


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """What was recognized; `text` is empty where nothing was understood."""

    text: str
    confidence: float | None = None


class Recognizer(Protocol):
    """Speech to text, one utterance at a time."""

    async def recognize(self, pcm: bytes, *, hints: Sequence[str]) -> Transcript:
        """Recognize one whole utterance: 16 kHz PCM. `hints` are the agent's `commands`.

        Raises:
            SpeechProviderError: the provider failed.
        """

    async def aclose(self) -> None: ...


class UnknownWords(msgspec.Struct, frozen=True, kw_only=True):
    """A hint that a recognizer does not simply know.

    `recognizable`: it takes part all the same, although the recognizer had to guess `words`. Otherwise it
    never matches: because of these `words` or, where there are none, because of what it is. `reason` says
    that to whoever wrote the hint, as the second half of a sentence.
    """

    hint: str
    words: tuple[str, ...]
    recognizable: bool
    reason: str


@runtime_checkable
class HintCheck(Protocol):
    """What a `Recognizer` may be as well: one that can tell beforehand which hints it cannot know."""

    async def unknown_words(self, hints: Sequence[str]) -> Sequence[UnknownWords]:
        """The hints that are not simply known, in their order.

        Raises:
            SpeechProviderError: the provider failed.
        """


class VoiceActivity(Protocol):
    """Decides for one session when its user speaks. Not async: a few microseconds to a millisecond."""

    @property
    def frame_samples(self) -> int:
        """How many 16-kHz samples one call of `is_speech` takes."""

    def is_speech(self, frame: bytes) -> bool:
        """Whether this frame of 16-kHz PCM is speech."""


class SpeechSuite(Protocol):
    """What a runner speaks and listens with."""

    @property
    def synthesizer(self) -> Synthesizer: ...

    @property
    def recognizer(self) -> Recognizer: ...

    def new_voice_activity(self) -> VoiceActivity:
        """One per session: it keeps state between frames."""

    async def aclose(self) -> None: ...


# ------------------------------------------------------------------ the relay


class RunnerLink(Protocol):
    """A runner's end of the relay. Reconnects by itself; while it is away, what is sent is dropped."""

    async def send(self, message: ToService) -> None: ...

    def messages(self) -> AsyncIterator[ToRunner]:
        """Messages for this runner, until `aclose`."""

    async def aclose(self) -> None: ...


class RunnerAway(Exception):
    """No such runner is linked now."""


class RelayHub(Protocol):
    """A session service's end of the relay. There may be several services: each hears every runner."""

    async def send(self, runner_id: str, message: ToRunner) -> None:
        """Raises RunnerAway where that runner is not linked."""

    def messages(self) -> AsyncIterator[tuple[str, ToService | None]]:
        """`(runner_id, message)`; None in place of a message: that runner's link is gone."""

    @property
    def linked(self) -> bool:
        """Whether the relay itself works: while it does not, a runner's silence says nothing about it."""

    async def call_roll(self) -> None:
        """Have every runner that is linked say hello (again)."""

    async def publish(self, notice: ServiceNotice) -> None:
        """Tell every session service on this relay, this one included; dropped while the relay is away."""

    def notices(self) -> AsyncIterator[ServiceNotice]:
        """What session services publish, until `aclose`; for one reader."""

    def drop(self, runner_id: str) -> None:
        """Cut a runner's link (`messages` says that it is gone); it may come back. Harmless without one."""

    async def aclose(self) -> None: ...


class Lease(Protocol):
    """The right to coordinate, held by one process of all; lost by itself when its holder dies or hangs."""

    async def hold(self) -> bool:
        """Take it, or keep it: whether it is ours now. To be called again within `seconds` / 3.

        False also where nobody can tell, because what keeps the lease is away.
        """

    @property
    def seconds(self) -> float:
        """How long after the last `hold` another may take it."""

    async def release(self) -> None:
        """Let the next one have it now. Harmless where it is not ours."""

    async def aclose(self) -> None:
        """Release it, and what the adapter holds."""


# ------------------------------------------------------------------ bundles


class BundlesUnavailable(Exception):
    """The store of bundles cannot be read or written now; nothing was changed."""


class BundleStore(Protocol):
    """Keeps uploaded bundles by the SHA-256 of their bytes (hex). Every method but `aclose` may raise
    BundlesUnavailable."""

    async def put(self, checksum: str, data: bytes) -> None: ...

    async def get(self, checksum: str) -> bytes:
        """Raises KeyError where there is none."""

    async def delete(self, checksum: str) -> None: ...

    async def ping(self) -> None:
        """Raises BundlesUnavailable where it cannot be used now: a cheap look."""

    async def aclose(self) -> None:
        """Release what the adapter holds; what was put stays."""


class BundleReport(msgspec.Struct, frozen=True, kw_only=True):
    """What loading a bundle in the real sandbox came to. `problem` is None where it is fine.

    `remarks` are lines about what will not work as its author expects, although it loads.
    """

    hooks: Sequence[str] = ()
    commands: Sequence[str] = ()
    problem: str | None = None
    stack: str | None = None
    log_lines: Sequence[str] = ()
    remarks: Sequence[str] = ()


class BundleVerifier(Protocol):
    """Loads a bundle as a session would, and says what it registers."""

    async def verify(self, data: bytes) -> BundleReport: ...
