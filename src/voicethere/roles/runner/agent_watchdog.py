"""How long an agent child may take for what. Numbers in, a verdict out: no timer, no process in here.

Time is what `pass_time` says. A runner that was itself held up must not blame its children for it, so the
caller reports no more than a bounded step at once.
"""

from __future__ import annotations

import msgspec


class AgentTimeouts(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds.

    `start` is from the process's start until `on_agent_start` is done, `end` for all that `session_end`
    takes, a handler that still runs included.
    """

    start: float = 10.0
    hook: float = 60.0
    error_hook: float = 5.0
    ping_interval: float = 1.0
    ping_timeout: float = 5.0
    end: float = 10.0

    @property
    def tick(self) -> float:
        """How often to look: a quarter of the shortest, and at least four times a second."""
        return min(self.start, self.hook, self.ping_interval, self.ping_timeout, self.end, 1.0) / 4


class Watchdog:
    """Collects what is due; `overdue` says in words what is late.

    Example:
        >>> dog = Watchdog(AgentTimeouts(hook=60))
        >>> dog.hook_began("s1", "on_user_speech_final")
        >>> dog.pass_time(61)
        >>> dog.overdue()
        'on_user_speech_final did not return within 60 s'
    """

    def __init__(self, timeouts: AgentTimeouts) -> None:
        self._timeouts = timeouts
        self._now = 0.0
        self._due: dict[tuple[str, str], tuple[float, str]] = {}
        self._pinging = False
        self._next_ping = 0.0
        self._pings = 0
        self._unanswered: dict[int, float] = {}

    def pass_time(self, seconds: float) -> None:
        """Time went by."""
        self._now += seconds

    def overdue(self) -> str | None:
        """What the child is late with, or None."""
        for due, words in self._due.values():
            if self._now >= due:
                return words
        for sent in self._unanswered.values():
            if self._now - sent >= self._timeouts.ping_timeout:
                limit = self._timeouts.ping_timeout
                return f"did not answer for {limit:g} s: something blocks the event loop"
        return None

    def started(self) -> None:
        """The process runs; it has to load its bundle."""
        self._expect(("start", ""), self._timeouts.start, "did not finish loading and on_agent_start")

    def loaded(self) -> None:
        """It has. From now on it is pinged."""
        self._due.pop(("start", ""), None)
        self._pinging = True
        self._next_ping = self._now

    def session_starting(self, session_id: str) -> None:
        """Whether or not it reports the hook: the acknowledgement must come."""
        limit = self._timeouts.hook + self._timeouts.ping_timeout
        self._expect(("session_start", session_id), limit, "did not acknowledge session_start")

    def session_started(self, session_id: str) -> None:
        """The acknowledgement came, or is not due any more."""
        self._due.pop(("session_start", session_id), None)

    def session_ending(self, session_id: str) -> None:
        """The whole of the end is due, a handler that still runs included."""
        self._expect(("end", session_id), self._timeouts.end, "did not finish session_end")

    def session_ended(self, session_id: str) -> None:
        """Nothing of this session is due any more."""
        for kind in ("session_start", "hook", "end"):
            self._due.pop((kind, session_id), None)

    def hook_began(self, session_id: str, hook: str) -> None:
        """A hook of the session runs."""
        self._expect(("hook", session_id), self._timeouts.hook, f"{hook} did not return")

    def hook_over(self, session_id: str) -> None:
        """It is over."""
        self._due.pop(("hook", session_id), None)

    def ping_due(self) -> int | None:
        """The number of the ping to send now, or None."""
        if not self._pinging or self._now < self._next_ping:
            return None
        self._next_ping = self._now + self._timeouts.ping_interval
        return self.ping_now()

    def ping_now(self) -> int:
        """The number of a ping that is sent out of turn."""
        self._pings += 1
        self._unanswered[self._pings] = self._now
        return self._pings

    def unanswered(self, n: int) -> bool:
        """Whether the answer to ping `n` is yet to come."""
        return n in self._unanswered

    def pong(self, n: int) -> None:
        """Ping `n` was answered, and with it all before; a number that is not open means nothing."""
        if n in self._unanswered:
            self._unanswered = {ping: sent for ping, sent in self._unanswered.items() if ping > n}

    def _expect(self, what: tuple[str, str], seconds: float, words: str) -> None:
        self._due[what] = (self._now + seconds, f"{words} within {seconds:g} s")
