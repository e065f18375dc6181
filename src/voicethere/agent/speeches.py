"""The handles of what was said and is not over yet."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import Future

from voicethere.agent.speech import Speech, SpeechOutcome


class Speeches:
    """Open handles by number. Safe from any thread: each step is one operation on a dict."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[int, tuple[str, Future[SpeechOutcome]]] = {}

    def open(self, session_id: str, parts: Sequence[str]) -> tuple[int, Speech]:
        """A new handle and its number; `parts` may grow while the text is being written."""
        number = next(self._numbers)
        future: Future[SpeechOutcome] = Future()
        self._open[number] = (session_id, future)
        return number, Speech(parts, future)

    def done(self, session_id: str, number: int, outcome: SpeechOutcome) -> None:
        """Resolve one handle; a number that is not open (any more) is ignored."""
        entry = self._open.pop(number, None)
        if entry is not None and entry[0] == session_id:
            entry[1].set_result(outcome)

    def session_over(self, session_id: str) -> None:
        """What is still open in this session will not be played to its end."""
        for number, (owner, _) in list(self._open.items()):
            if owner == session_id:
                self.done(session_id, number, SpeechOutcome.INTERRUPTED)


def settled(text: str, outcome: SpeechOutcome) -> Speech:
    """A handle that is done from the start."""
    future: Future[SpeechOutcome] = Future()
    future.set_result(outcome)
    return Speech((text,), future)
