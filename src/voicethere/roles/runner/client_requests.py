"""What a client asks for on its data channels, carried out: an event for the session, or a visible refusal.

`client_messages` says what a frame means; what an event leads to is the session's machine's.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from voicethere.core.session import Event, events
from voicethere.roles.runner.client_messages import ForAgent, MessageRefused, interpret
from voicethere.roles.runner.settings import RunnerSettings
from voicethere.wire import ipc
from voicethere.wire.control_channel import Keepalive, SessionClose, SessionHello, SpeakRequest
from voicethere.wire.relay import DeployedAgent

_log = structlog.get_logger(__name__)


class ClientRequests:
    """`post` tells the machine, `refuse` the client; `speak` says a text, False where too much waits."""

    def __init__(
        self,
        *,
        session_id: str,
        agent: DeployedAgent,
        settings: RunnerSettings,
        post: Callable[[Event], None],
        refuse: Callable[[MessageRefused], None],
        speak: Callable[[str], bool],
    ) -> None:
        self._session_id = session_id
        self._agent = agent
        self._settings = settings
        self._post = post
        self._refuse = refuse
        self._speak = speak

    def control(self, data: str | bytes) -> None:
        """A frame on voice-control."""
        if isinstance(data, bytes):
            self.binary(data, "control")
            return
        match interpret(data, self._settings):
            case ForAgent(raw=raw):
                message = ipc.DataChannelMessage(session_id=self._session_id, raw=raw)
                self._post(events.ClientSent(message=message))
            case SessionHello(customer_context=context):
                self._post(events.HelloReceived(customer_context=context))
            case SessionClose():
                self._post(events.ClientClosed())
            case Keepalive():
                self._post(events.Activity(voice=False))
            case SpeakRequest(text=text):
                self._speech_wanted(text)
            case MessageRefused() as refused:
                _log.info("message_refused", session_id=self._session_id, reason=refused.reason)
                self._refuse(refused)

    def binary(self, data: bytes, channel: str) -> None:
        """Bytes on `control` or `sync`."""
        limit = self._settings.max_binary_message_bytes
        if len(data) > limit:
            words = f"a binary message of {len(data)} bytes; at most {limit} are taken"
            self._refuse(MessageRefused(reason=words))
            return
        message = ipc.DataChannelBinary(session_id=self._session_id, data=data, channel=channel)
        self._post(events.ClientSent(message=message))

    def _speech_wanted(self, text: str) -> None:
        self._post(events.Activity(voice=False))
        problem = None
        if not self._agent.client_speak_enabled:
            problem = "this project does not let clients ask for speech"
        elif not self._agent.mode.has_audio:
            problem = "this session has no audio"
        elif not self._speak(text):
            problem = "too much speech is waiting already"
        if problem is not None:
            self._refuse(MessageRefused(reason=problem, refused="speak"))
