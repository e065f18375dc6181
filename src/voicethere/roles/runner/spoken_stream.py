"""A text that is said while it is being written: pieces of it in, sentences out, and whether it was heard.

Knows which sentence is next; not how anything is said, nor who writes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from voicethere.core.sentences import SentenceCutter

Said = Callable[[bool], None]
"""Called once with whether it was interrupted (or never said)."""


class SpokenStream:
    """Made by `Speaker.stream`; `has_room(chars)` says whether so much more text may wait to be said.

    Example:
        >>> stream = speaker.stream(said)
        >>> stream.feed("Hello there. How ")
        >>> stream.end(complete=True)
    """

    def __init__(self, said: Said, has_room: Callable[[int], bool]) -> None:
        self._said = said
        self._has_room = has_room
        self._cutter = SentenceCutter()
        self._sentences: deque[str] = deque()
        self._ended = False
        self._told = False
        self._changed = asyncio.Event()
        self._over = False
        self.unsaid_chars = 0

    @property
    def over(self) -> bool:
        """Played, or interrupted: nothing of it is said any more."""
        return self._over

    def feed(self, text: str) -> None:
        """The next piece of text. Where there is no room for it, the stream is interrupted."""
        if self._over:
            return
        if self._has_room(len(text)):
            self.unsaid_chars += len(text)
            self._add(self._cutter.feed(text))
        else:
            self.interrupt()

    def end(self, *, complete: bool) -> None:
        """That was all of it; not `complete` counts as interrupted at once, though all that came is said."""
        self._ended = True
        self._add([self._cutter.finish()])
        if not complete:
            self._tell(interrupted=True)

    def interrupt(self) -> None:
        """Say nothing more of it; harmless when it is over."""
        self.finish(interrupted=True)

    async def next_sentence(self) -> str | None:
        """What is to be said next; waits for it. None where there is nothing more to be said."""
        while not self._over:
            if self._sentences:
                return self._sentences.popleft()
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        return None

    def sentence_said(self, sentence: str) -> None:
        """It makes room for others."""
        self.unsaid_chars = max(0, self.unsaid_chars - len(sentence))

    def finish(self, *, interrupted: bool) -> None:
        """Nothing more will be said of it."""
        if not self._over:
            self._over = True
            self._sentences.clear()
            self.unsaid_chars = 0
            self._changed.set()
            self._tell(interrupted=interrupted)

    def _tell(self, *, interrupted: bool) -> None:
        if not self._told:
            self._told = True
            self._said(interrupted)

    def _add(self, sentences: list[str]) -> None:
        if not self._over:
            self._sentences.extend(sentence for sentence in sentences if sentence.strip())
            self._changed.set()
