"""The twelve session error codes of the seed, where each may appear, and what it means to people.

This module knows what a code *is*. It does not know how an error is made (`convert`), what it looks
like on the wire (`envelope`) or when a session raises it (`voicethere.core.session`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

import msgspec


class SessionErrorCode(enum.StrEnum):
    """Every code that a `session_error` may carry (seed: "Error code catalog")."""

    AGENT_HANDLER_FAILED = "AGENT_HANDLER_FAILED"
    AGENT_CHILD_CRASHED = "AGENT_CHILD_CRASHED"
    RUNNER_INTERNAL = "RUNNER_INTERNAL"
    SESSION_END_FAILED = "SESSION_END_FAILED"
    IDLE_TIMEOUT_CALLBACK_FAILED = "IDLE_TIMEOUT_CALLBACK_FAILED"
    IDLE_TIMEOUT_CALLBACK_TIMED_OUT = "IDLE_TIMEOUT_CALLBACK_TIMED_OUT"
    SESSION_IDLE_TIMEOUT = "SESSION_IDLE_TIMEOUT"
    PROVISIONING_FAILED = "PROVISIONING_FAILED"
    PROVISIONING_TIMEOUT = "PROVISIONING_TIMEOUT"
    WEBRTC_CONNECTION_FAILED = "WEBRTC_CONNECTION_FAILED"
    WEBRTC_CONNECTION_CLOSED = "WEBRTC_CONNECTION_CLOSED"
    WEBRTC_CONNECT_TIMEOUT = "WEBRTC_CONNECT_TIMEOUT"


class ErrorScope(enum.StrEnum):
    """Where a code is born: `remote` ones travel on voice-control, `local` ones only exist in a client."""

    REMOTE = "remote"
    LOCAL = "local"


class ErrorSource(enum.StrEnum):
    """The `source` column of a stored row (contract: control-plane.md)."""

    AGENT = "agent"
    RUNNER = "runner"
    PROVISIONING = "provisioning"


class CodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalog says of one code.

    `source` is None for the codes that are never stored. `recoverable` is the default where the contract
    leaves no room (see `note_on_recoverable` where it depends on what follows).
    """

    code: SessionErrorCode
    scope: ErrorScope
    source: ErrorSource | None
    message: str
    recoverable: bool
    when: str
    cause: str
    remedy: str
    note_on_recoverable: str = ""


def _catalog(*entries: CodeInfo) -> Mapping[SessionErrorCode, CodeInfo]:
    return MappingProxyType({entry.code: entry for entry in entries})


CATALOG: Mapping[SessionErrorCode, CodeInfo] = _catalog(
    CodeInfo(
        code=SessionErrorCode.AGENT_HANDLER_FAILED,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.AGENT,
        message="Sorry, something went wrong.",
        recoverable=False,
        when="A handler of the agent raised; error_hook has run and the runner ends the session.",
        cause="The agent's own code raised an exception that it did not catch, or a task that it started "
        "did.",
        remedy="Read the end of the stack trace: it names the agent's file and line. Handle the case there, "
        "upload a new build and deploy it.",
    ),
    CodeInfo(
        code=SessionErrorCode.AGENT_CHILD_CRASHED,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.AGENT,
        message="Sorry, something went wrong.",
        recoverable=False,
        when="The agent's process exited, was killed, stopped answering, or could not load its bundle.",
        cause="The process that runs the agent ended: an exit, a signal, too much memory, an import that "
        "failed, "
        "or code that blocked it for longer than it may.",
        remedy="Look at the row's details: they name the kind of crash and the last log lines. "
        "`voicethere agent verify FILE` loads the same bundle in the same sandbox.",
        note_on_recoverable="True where the project's crash policy restarts the child and the session "
        "goes on.",
    ),
    CodeInfo(
        code=SessionErrorCode.RUNNER_INTERNAL,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.RUNNER,
        message="The service has a problem of its own. It is not your fault.",
        recoverable=False,
        when="Something of the platform failed during the session, such as crash speech that could not be "
        "played.",
        cause="The runner itself failed: speech could not be made or played, the peer could not be set up, "
        "or the runner's process died.",
        remedy="Look at the row's message and at the runner's log for this session id.",
    ),
    CodeInfo(
        code=SessionErrorCode.SESSION_END_FAILED,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.RUNNER,
        message="The session could not be ended cleanly.",
        recoverable=False,
        when="Tearing the session down failed or took too long.",
        cause="A part of the session (the agent's process, the peer, its scratch folder) could not be "
        "closed in time.",
        remedy="Look at the runner's log for this session id, and whether the machine is out of disk or "
        "memory.",
    ),
    CodeInfo(
        code=SessionErrorCode.IDLE_TIMEOUT_CALLBACK_FAILED,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.AGENT,
        message="Sorry, something went wrong.",
        recoverable=True,
        when="The agent's on_idle_timeout hook raised.",
        cause="The agent's own code raised an exception while it handled the idle limit.",
        remedy="Read the end of the stack trace and mend on_idle_timeout; the session ends as idle all "
        "the same.",
    ),
    CodeInfo(
        code=SessionErrorCode.IDLE_TIMEOUT_CALLBACK_TIMED_OUT,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.AGENT,
        message="Sorry, something went wrong.",
        recoverable=True,
        when="The agent's on_idle_timeout hook took longer than its 30 s of grace.",
        cause="on_idle_timeout waits for something slow, or never returns.",
        remedy="Bound what the hook waits for to less than 30 seconds.",
    ),
    CodeInfo(
        code=SessionErrorCode.SESSION_IDLE_TIMEOUT,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.RUNNER,
        message="The session ended because nothing happened for a while.",
        recoverable=False,
        when="Informational: nobody spoke or sent anything for the idle limit.",
        cause="Neither the user nor the agent did anything that counts as activity for the configured time.",
        remedy="If that is too soon, raise idle_timeout_seconds (voice) or data_only_idle_timeout_seconds "
        "(data) "
        "in the project's session settings and deploy again.",
    ),
    CodeInfo(
        code=SessionErrorCode.PROVISIONING_FAILED,
        scope=ErrorScope.LOCAL,
        source=ErrorSource.PROVISIONING,
        message="The session could not be started.",
        recoverable=False,
        when="The job that starts the session failed, or the session service answered with an error.",
        cause="The project has no deployed build, no runner is there, the key is not allowed, or the service "
        "is out of reach.",
        remedy="Look at the failure code. NOT_DEPLOYED: deploy a build. RUNNER_UNAVAILABLE: start a runner. "
        "HTTP_ERROR: check the address and the key.",
    ),
    CodeInfo(
        code=SessionErrorCode.PROVISIONING_TIMEOUT,
        scope=ErrorScope.LOCAL,
        source=ErrorSource.PROVISIONING,
        message="Starting the session took too long.",
        recoverable=True,
        when="The session was not ready within the client's or the service's limit.",
        cause="Every runner is busy or slow to answer, or the agent takes too long to load.",
        remedy="Try again; if it persists, add runners or look at what the agent does on import.",
    ),
    CodeInfo(
        code=SessionErrorCode.WEBRTC_CONNECTION_FAILED,
        scope=ErrorScope.LOCAL,
        source=None,
        message="The connection to the agent failed.",
        recoverable=False,
        when="The client's peer connection reached the state failed.",
        cause="The network lost the path between client and runner, or a firewall blocks it.",
        remedy="Check that UDP between client and runner is allowed, or configure a relay in ice_servers.",
        note_on_recoverable="True exactly while another try follows.",
    ),
    CodeInfo(
        code=SessionErrorCode.WEBRTC_CONNECTION_CLOSED,
        scope=ErrorScope.LOCAL,
        source=None,
        message="The connection to the agent was closed.",
        recoverable=False,
        when="The connection closed although nobody asked for it.",
        cause="The runner ended the session, or the connection went away, without a reason that the "
        "client knows.",
        remedy="Look the session up by its id: `voicethere projects errors list --session ID`.",
        note_on_recoverable="True exactly while another try follows.",
    ),
    CodeInfo(
        code=SessionErrorCode.WEBRTC_CONNECT_TIMEOUT,
        scope=ErrorScope.LOCAL,
        source=None,
        message="Connecting to the agent took too long.",
        recoverable=True,
        when="The client was not connected within its limit.",
        cause="No network path between client and runner was found in time.",
        remedy="Try again; if it persists, check firewalls, or configure a relay in ice_servers.",
    ),
)

SESSION_ERROR_CODES: tuple[str, ...] = tuple(code.value for code in SessionErrorCode)
"""All codes, in the seed's order."""

REMOTE_CODES: frozenset[SessionErrorCode] = frozenset(
    code for code, info in CATALOG.items() if info.scope is ErrorScope.REMOTE
)
LOCAL_CODES: frozenset[SessionErrorCode] = frozenset(SessionErrorCode) - REMOTE_CODES
