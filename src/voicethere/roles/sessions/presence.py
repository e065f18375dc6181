"""Which runners are linked, and which sessions each says that it hosts: as every service hears it."""

from __future__ import annotations

from voicethere.wire.relay import RoomClosed, RunnerHello, SessionAccepted, ToService


class RunnerPresence:
    """Example:
    >>> presence = RunnerPresence()
    >>> presence.heard("r-1", RunnerHello(runner_id="r-1", capacity=2, sessions=["s-1"]))
    >>> presence.hosts("r-1", "s-1")
    True
    """

    def __init__(self) -> None:
        self._sessions: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def hosts(self, runner_id: str, session_id: str) -> bool:
        """Whether this runner is linked and hosts this session."""
        return session_id in self._sessions.get(runner_id, ())

    def heard(self, runner_id: str, message: ToService | None) -> None:
        """One message of a runner; None: its link is gone."""
        match message:
            case None:
                self._sessions.pop(runner_id, None)
            case RunnerHello(sessions=sessions):
                self._sessions[runner_id] = set(sessions)
            case SessionAccepted(session_id=session_id):
                if runner_id in self._sessions:
                    self._sessions[runner_id].add(session_id)
            case RoomClosed(session_id=session_id):
                self._sessions.get(runner_id, set()).discard(session_id)
            case _:
                pass
