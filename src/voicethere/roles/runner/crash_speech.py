"""The crash message as packets, encoded before it is needed.

A session prepares its message when it is assigned; when its agent fails, playing it depends neither on the
agent nor on a synthesizer that is in good health.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from voicethere.adapters.rtc.opus import encode_all
from voicethere.core.ports import SpeechProviderError, Synthesizer

_KEPT = 64


class CrashSpeech:
    """Encodes each message once; concurrent sessions of one deployment share it."""

    def __init__(self, synthesizer: Synthesizer) -> None:
        self._synthesizer = synthesizer
        self._encoded: OrderedDict[str, asyncio.Task[list[bytes]]] = OrderedDict()

    async def packets(self, text: str) -> list[bytes]:
        """The message as 20-ms Opus packets.

        Raises:
            SpeechProviderError: it could not be spoken. The next call tries again.
        """
        task = self._encoded.get(text)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = asyncio.create_task(self._encode(text), name="encode crash message")
            self._encoded[text] = task
            while len(self._encoded) > _KEPT:
                self._encoded.popitem(last=False)
        self._encoded.move_to_end(text)
        # A caller that gives up must not take the encoding away from the others.
        return await asyncio.shield(task)

    async def _encode(self, text: str) -> list[bytes]:
        packets = await encode_all(self._synthesizer.synthesize(text), self._synthesizer.sample_rate)
        if not packets:
            raise SpeechProviderError("the synthesizer gave no sound for the crash message")
        return packets

    async def aclose(self) -> None:
        """Stop what is being encoded."""
        tasks = [task for task in self._encoded.values() if not task.done()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
