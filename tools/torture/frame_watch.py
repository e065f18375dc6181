"""What must hold of the frames of one conversation, in whatever pieces its sockets get them. Pure.

Knows frames as text. What they tell is not looked at beyond their numbers.
"""

from __future__ import annotations

from typing import Any

import msgspec

UPSERT = "timeline.upsert"


class FrameWatch:
    """Call `opened` for each new socket, `frame` for each frame; both are of one conversation.

    A frame without `seq` tells anew what is known: behind it the numbers may go on further ahead. Without one
    between them, the next number is the next one. Numbers and versions never go back, from socket to socket.

    Example:
        >>> watch = FrameWatch()
        >>> watch.opened()
        >>> watch.frame('{"sem": true, "event": {"type": "log", "id": "1", "seq": 7}}')
        []
        >>> watch.frame('{"sem": true, "event": {"type": "log", "id": "1", "seq": 9}}')
        ['seq 9 came behind seq 7']
    """

    def __init__(self) -> None:
        self.frames = 0
        self.told_again = 0
        """Frames without a number."""
        self._follows: int | None = None
        self._newest = 0
        self._version = 0
        self._versions: dict[str, int] = {}

    def opened(self) -> None:
        """A socket has opened: what comes first on it may begin anywhere ahead."""
        self._follows = None

    def frame(self, text: str) -> list[str]:
        """What is wrong with it: nothing, as it should be."""
        self.frames += 1
        event = msgspec.json.decode(text)["event"]
        seq = event.get("seq")
        if seq is None:
            return self._told_again(event)
        wrong = []
        if self._follows is not None and seq != self._follows + 1:
            wrong.append(f"seq {seq} came behind seq {self._follows}")
        elif seq <= self._newest:
            wrong.append(f"seq {seq} came after seq {self._newest} had been seen")
        self._follows = seq
        self._newest = max(self._newest, seq)
        if event["type"] == UPSERT:
            entity, version = _upserted(event)
            if version <= self._version:
                wrong.append(f"seq {seq} has version {version}, and {self._version} was seen before it")
            self._version = max(self._version, version)
            self._versions[entity] = max(version, self._versions.get(entity, 0))
        return wrong

    def _told_again(self, event: dict[str, Any]) -> list[str]:
        self.told_again += 1
        self._follows = None
        if event["type"] != UPSERT:
            return [f"a frame of type {event['type']} has no seq"]
        entity, version = _upserted(event)
        known = self._versions.get(entity, 0)
        self._versions[entity] = max(version, known)
        if version < known:
            return [f"{entity} was told again as of version {version}, and was seen as of {known}"]
        return []


def _upserted(event: dict[str, Any]) -> tuple[str, int]:
    return event["data"]["entity"]["id"], int(event["data"]["version"])
