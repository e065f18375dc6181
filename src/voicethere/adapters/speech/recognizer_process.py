"""The process that recognizes: pocketsphinx behind the frames of `worker_protocol`.

Run as `python -m voicethere.adapters.speech.recognizer_process RUNNER_PID` by `worker`.
"""

from __future__ import annotations

from voicethere.adapters.speech.grammar_decoder import GrammarDecoder
from voicethere.adapters.speech.worker_main import Handler, serve
from voicethere.adapters.speech.worker_protocol import (
    LookUpReply,
    LookUpRequest,
    ReadyReply,
    RecognizeReply,
    RecognizeRequest,
    Reply,
    Request,
)


def start() -> tuple[ReadyReply, Handler]:
    """Load the acoustic model and the dictionary.

    Raises:
        ImportError: the `speech` extra is not installed.
        RuntimeError: the model cannot be loaded.
    """
    decoder = GrammarDecoder()

    def handle(request: Request) -> Reply:
        if isinstance(request, LookUpRequest):
            guessed, unknown = decoder.look_up(request.words)
            return LookUpReply(guessed=guessed, unknown=unknown)
        if not isinstance(request, RecognizeRequest):
            raise TypeError(f"not for a recognizer: {type(request).__name__}")
        if not request.phrases:
            words, confidence = decoder.dictate(request.pcm)
            return RecognizeReply(words=words, confidence=confidence)
        match = decoder.recognize(request.pcm, request.phrases)
        return RecognizeReply(phrase=match.phrase, confidence=match.confidence)

    return ReadyReply(), handle


if __name__ == "__main__":
    serve(start)
