"""The process that speaks: espeak-ng behind the frames of `worker_protocol`.

Run as `python -m voicethere.adapters.speech.synthesizer_process RUNNER_PID` by `worker`.
"""

from __future__ import annotations

from pathlib import Path

from voicethere.adapters.speech.espeak_library import EspeakLibrary, EspeakUnusable
from voicethere.adapters.speech.silence import trim_silence
from voicethere.adapters.speech.worker_main import Handler, serve
from voicethere.adapters.speech.worker_protocol import ReadyReply, Reply, Request, SayReply, SayRequest


def start() -> tuple[ReadyReply, Handler]:
    """Load the library and make sure that it really speaks.

    Raises:
        EspeakUnusable: it does not.
        ImportError: the `speech` extra is not installed.
    """
    import espeakng_loader

    library = EspeakLibrary(Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path()))
    pcm, _ = library.say("a", voice="en-us", words_per_minute=175)
    if not trim_silence(pcm, library.sample_rate):
        raise EspeakUnusable("espeak-ng starts but speaks nothing")

    def handle(request: Request) -> Reply:
        if not isinstance(request, SayRequest):
            raise TypeError(f"not for a synthesizer: {type(request).__name__}")
        pcm, cut = library.say(request.text, voice=request.voice, words_per_minute=request.words_per_minute)
        return SayReply(pcm=trim_silence(pcm, library.sample_rate), cut=cut)

    return ReadyReply(sample_rate=library.sample_rate), handle


if __name__ == "__main__":
    serve(start)
