"""espeak-ng through ctypes: one call, one segment of text, its PCM.

Knows the C library's calls and constants. Its state is global and it has had memory errors with strange
text, so this module belongs in a process of its own (`synthesizer_process`); nothing here is thread-safe.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_POSITION_CHARACTER = 1
_CHARS_UTF8 = 1  # and neither SSML (0x10) nor phoneme input (0x100): text is only ever text
_PARAMETER_RATE = 1
_SYNTH_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)

MAX_PCM_SECONDS = 60
"""Speech of one segment is cut here: a few hundred characters can spell out to more (emoji names)."""


class EspeakUnusable(Exception):
    """The library is there but does not work; the words say what failed."""


class EspeakLibrary:
    """espeak-ng, loaded and initialised in this process.

    Args:
        library: path of the shared library.
        data: the folder `espeak-ng-data`.

    Raises:
        EspeakUnusable: it cannot be loaded or initialised.
    """

    def __init__(self, library: Path, data: Path) -> None:
        try:
            self._lib = ctypes.CDLL(str(library))
        except OSError as error:
            raise EspeakUnusable(f"the espeak-ng library cannot be loaded: {error}") from None
        if not data.is_dir():
            raise EspeakUnusable(f"the espeak-ng data folder {data} is missing")
        # The library silently cuts long paths and then speaks nothing. The process is ours: a path of one
        # character always fits.
        os.chdir(data)
        self.sample_rate = int(
            self._lib.espeak_Initialize(_AUDIO_OUTPUT_SYNCHRONOUS, 0, b".", _INITIALIZE_DONT_EXIT)
        )
        if self.sample_rate <= 0:
            raise EspeakUnusable(f"espeak-ng does not start with its data in {data}")
        self._pcm = bytearray()
        self._cut = False
        self._callback = _SYNTH_CALLBACK(self._take)  # kept: the library holds no reference
        self._lib.espeak_SetSynthCallback(self._callback)
        self._voice = ""
        self._words_per_minute = 0

    def _take(self, samples: ctypes._Pointer[ctypes.c_short], count: int, _events: int | None) -> int:
        """The library's callback; returning 1 stops the synthesis."""
        if samples and count > 0:
            self._pcm += ctypes.string_at(samples, count * 2)
        if len(self._pcm) > MAX_PCM_SECONDS * self.sample_rate * 2:
            self._cut = True
            return 1
        return 0

    def say(self, text: str, *, voice: str, words_per_minute: int) -> tuple[bytes, bool]:
        """PCM of `text`, and whether it was cut at `MAX_PCM_SECONDS`.

        Raises:
            EspeakUnusable: no such voice, or the library reports a failure.
        """
        if voice != self._voice:
            if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
                raise EspeakUnusable(f"espeak-ng has no voice {voice!r}")
            self._voice = voice
            self._words_per_minute = 0  # a voice brings its own rate
        if words_per_minute != self._words_per_minute:
            self._lib.espeak_SetParameter(_PARAMETER_RATE, words_per_minute, 0)
            self._words_per_minute = words_per_minute
        self._pcm = bytearray()
        self._cut = False
        data = text.encode("utf-8", "replace") + b"\0"
        status = self._lib.espeak_Synth(
            data, ctypes.c_size_t(len(data)), 0, _POSITION_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        if status != 0 and not self._cut:
            raise EspeakUnusable(f"espeak-ng reports error {status}")
        pcm = bytes(self._pcm[: MAX_PCM_SECONDS * self.sample_rate * 2])
        self._pcm = bytearray()
        return pcm, self._cut
