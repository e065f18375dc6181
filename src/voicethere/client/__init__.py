"""The Python client: start a session, connect to it, hear of every failure.

Needs the extra `client`. Example:

    >>> provision = await start_session("http://127.0.0.1:8080", project_id, api_key=key)
    >>> if provision.ok:
    ...     async with connect_session(provision.credentials, on_session_error=print) as session:
    ...         session.send_chat("hello")
"""

from voicethere.client.audio import (
    BufferSink,
    Microphone,
    PcmQueue,
    PcmSink,
    PcmSource,
    WavSink,
    WavSource,
)
from voicethere.client.connect import Connecting, connect_session
from voicethere.client.ending import ConnectError, SessionEnd
from voicethere.client.link import BinaryMessage
from voicethere.client.provisioning import ProvisionResult, StatusUpdate, start_session
from voicethere.client.session import Session, SessionState
from voicethere.client.session_service import Timing
from voicethere.errors.codes import SESSION_ERROR_CODES, SessionErrorCode
from voicethere.errors.records import SessionErrorEnvelope
from voicethere.wire.control_channel import SpeechEvent, SpeechEventType
from voicethere.wire.session_api import Credentials, IceServer, Mode

__all__ = [
    "start_session",
    "ProvisionResult",
    "StatusUpdate",
    "Timing",
    "connect_session",
    "Connecting",
    "Session",
    "SessionEnd",
    "SessionState",
    "ConnectError",
    "BinaryMessage",
    "Microphone",
    "PcmSource",
    "PcmQueue",
    "WavSource",
    "PcmSink",
    "BufferSink",
    "WavSink",
    "Credentials",
    "IceServer",
    "Mode",
    "SessionErrorEnvelope",
    "SessionErrorCode",
    "SESSION_ERROR_CODES",
    "SpeechEvent",
    "SpeechEventType",
]
