"""The twelve session error codes of the seed, where each may appear, and what it means to people.

This module knows what a code *is*. It does not know how an error is made (`convert`), what it looks
like on the wire (`records`) or when a session raises it (`voicethere.core.session`).
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


class Detail(msgspec.Struct, frozen=True):
    """One key of a stored row's `details`. `values` explains each value, where they are a closed list."""

    key: str
    meaning: str
    values: tuple[tuple[str, str], ...] = ()


class CodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the catalog says of one code.

    `source` is None for the codes that are never stored. `recoverable` is the default where the contract
    leaves no room (see `note_on_recoverable` where it depends on what follows).

    `when`, `cause`, `remedy` and `follows` are for people, `when` in one sentence; commands and names are in
    backticks. `follows` says what the client gets, and which errors may come before and after.
    """

    code: SessionErrorCode
    scope: ErrorScope
    source: ErrorSource | None
    message: str
    recoverable: bool
    when: str
    cause: str
    remedy: str
    follows: str
    details: tuple[Detail, ...] = ()
    note_on_recoverable: str = ""


_EXCEPTION_TYPE = Detail("exception_type", "the exception's class, such as `KeyError`")
_LAST_LOG_LINES = Detail(
    "last_log_lines",
    "the last lines (20 at most) that the agent logged or printed, oldest first; a line that begins with "
    "`warn:` may be standard error or a remark of the runner's",
)
_FAILURE_CODE = Detail(
    "failure_code",
    "what the session service found",
    (
        ("NOT_DEPLOYED", "the project has no deployed build"),
        ("RUNNER_UNAVAILABLE", "no runner is linked, or those there are could not take the session"),
        ("CAPACITY_EXCEEDED", "every runner is full, and the client did not want to wait"),
        ("CAPACITY_WAIT_EXPIRED", "the client stopped polling while it waited in the line"),
        ("MONTHLY_USAGE_EXCEEDED", "the project's usage quota is used up"),
        ("ORCHESTRATOR_ERROR", "the session service itself failed; its log has the reason"),
        ("JOIN_TOKEN_ERROR", "no join token could be made for the session"),
        ("TIMEOUT", "the runner did not accept the session in time (30 s)"),
    ),
)


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
        cause="The agent's own code raised an exception that it did not catch: in a hook, in a task or a "
        "thread that it started, or in a callback. The row's `message` is the exception's type and words.",
        remedy="Find the row with `voicethere projects errors list --session ID --json`: the end of its "
        "`stack_trace` names the file and line in the agent, `details.hook` the hook. Handle the case "
        "there, check the file with `voicethere agent verify FILE`, then `voicethere build upload FILE "
        "--promote` and `voicethere deploy`. What the caller hears is the session setting `error_message`.",
        follows="`error_hook` runs first (5 s at most; its own failure is only logged). The client gets "
        "the error at once, before any audio, with the project's `error_message` as its `message`; in "
        "modes with audio the same words are spoken. Then the connection is closed and the session ends as "
        "`agent_error`: nothing more is sent. If the crash message cannot be played, a `RUNNER_INTERNAL` "
        "is stored behind this one and not sent, and so is a `SESSION_END_FAILED`.",
        note_on_recoverable="True where a prompt of a chat came to an agent that has no "
        "`on_data_channel_message` hook: nobody answers it, and the session goes on.",
        details=(
            Detail("crash_kind", "how it happened", (("raised", "the agent's code raised"),)),
            Detail("hook", "the hook that raised, or what raised instead of one (such as a task)"),
            _EXCEPTION_TYPE,
            _LAST_LOG_LINES,
        ),
    ),
    CodeInfo(
        code=SessionErrorCode.AGENT_CHILD_CRASHED,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.AGENT,
        message="Sorry, something went wrong.",
        recoverable=False,
        when="The agent's process exited, was killed, stopped answering, or could not load its bundle.",
        cause="The process that runs the agent ended although the session had not: it exited, was killed "
        "by a signal, ran out of memory, blocked for longer than it may, or could not load its bundle. "
        "`details.crash_kind` says which.",
        remedy="Look at the row with `voicethere projects errors list --session ID --json`: `crash_kind`, "
        "`exit_status`, `signal` and the last log lines are in its `details`. `voicethere agent verify "
        "FILE` loads the same file in the same sandbox and shows a load failure at once. For "
        "`unresponsive`: do not block the event loop (`asyncio.sleep`, not `time.sleep`), or make the "
        "handler a plain function, which runs in a thread. For `out_of_memory`: keep less, or load less. "
        "For a `signal`: look for a library written in C among the agent's imports.",
        follows="`error_hook` cannot run: its process is gone. The client gets the error within "
        "milliseconds of the process's end, with the project's `error_message` as its `message`; in modes "
        "with audio the same words are spoken, encoded when the session began. Then the session ends as "
        "`agent_error`. Where `agent_crash_policy` is `restart_child` the error is `recoverable: true` "
        "instead, and the session goes on with a new process: at most three times within 60 s, and never "
        "after a load failure. A crash message that cannot be played adds a `RUNNER_INTERNAL`. An "
        "`agent_error` message of an older runner reaches the application as this code.",
        details=(
            Detail(
                "crash_kind",
                "how the process ended",
                (
                    ("raised", "the agent's code raised outside of everything that could report it"),
                    ("exited", "it exited by itself (`sys.exit`, `os._exit`); `exit_status` has the status"),
                    (
                        "signal",
                        "a signal killed it; `signal` names it (`SIGSEGV`: a crash in native code)",
                    ),
                    ("out_of_memory", "it wanted more memory than a child may use"),
                    (
                        "unresponsive",
                        "it answered no ping for 5 s, a handler ran for more than 60 s, or its start took "
                        "more than 10 s; it was killed",
                    ),
                    (
                        "load_failure",
                        "the bundle could not be loaded: a syntax or import error, no `define_agent`, or "
                        "`on_agent_start` raised; `stack_trace` shows where",
                    ),
                ),
            ),
            Detail("exit_status", "the number that the process exited with"),
            Detail("signal", "the signal's name, such as `SIGKILL`"),
            _EXCEPTION_TYPE,
            _LAST_LOG_LINES,
        ),
        note_on_recoverable="True where the project setting `agent_crash_policy` is `restart_child` and "
        "the agent is started again: the session goes on.",
    ),
    CodeInfo(
        code=SessionErrorCode.RUNNER_INTERNAL,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.RUNNER,
        message="The service has a problem of its own. It is not your fault.",
        recoverable=False,
        when="Something of the platform failed during the session, such as crash speech that could not be "
        "played.",
        cause="The runner itself failed, not the agent: an agent's process could not be started, the peer "
        "could not be set up, speech could not be made or played, or the runner's process died.",
        remedy="The row's `message` says what failed (`voicethere projects errors list --session ID "
        "--json`). `voicethere doctor` checks the sandbox, speech, network and disk of the machine. The "
        "runner's log has lines with the session's id: `.voicethere/data/logs/runner.log` for `voicethere "
        "up`, or what it wrote last in `runner.err` beside it.",
        follows="As the error that ends a session it is sent to the client, on the data channel or, where "
        "the runner's process died, on the signaling socket; the session ends as `error`. Where an agent's "
        "error came before it (the crash message could not be played), it is stored only: a client hears "
        "of no error after the one that ended the session.",
        note_on_recoverable="True where only the crash message of an agent that was started again could "
        "not be played: the session goes on. True, too, where a deploy or a runner that leaves cut off what "
        "the agent of a chat was answering: saying it again begins the conversation's next session.",
        details=(
            _EXCEPTION_TYPE,
            Detail("runner_id", "the runner that is gone, where its process died"),
        ),
    ),
    CodeInfo(
        code=SessionErrorCode.SESSION_END_FAILED,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.RUNNER,
        message="The session could not be ended cleanly.",
        recoverable=False,
        when="Tearing the session down failed or took too long.",
        cause="A part of the session could not be closed in time (5 s each): the agent's process, the "
        "peer, speech or recognition on its way, or the removal of the scratch folder. Or the agent of a "
        "conversation said something that no chat gateway has stored. The row's `message` names the part.",
        remedy="Look at the row with `voicethere projects errors list --session ID` and at the runner's "
        "log for the session's id. `voicethere doctor` shows whether the disk is full. When it happens to "
        "many sessions the machine is overloaded: lower `voicethere up --capacity`.",
        follows="The session counts as failed, whatever its end reason. It is stored and not sent: by then "
        "the connection is closed, and the client knows how its session ended. Any other error may come "
        "before it, none after it.",
    ),
    CodeInfo(
        code=SessionErrorCode.IDLE_TIMEOUT_CALLBACK_FAILED,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.AGENT,
        message="Sorry, something went wrong.",
        recoverable=True,
        when="The agent's on_idle_timeout hook raised.",
        cause="The agent's own code raised an exception while it handled the idle limit. The session was "
        "going to end as idle, and does.",
        remedy="Mend `on_idle_timeout`: the end of the row's `stack_trace` names the file and line "
        "(`voicethere projects errors list --session ID --json`). Then upload and deploy the agent again. "
        "A hook that is not needed can be left out: an agent without it is not waited for.",
        follows="The client gets this error, is told of `SESSION_IDLE_TIMEOUT` right behind it, and gets a "
        "`session_close` with `idle_timeout`. Nothing is spoken.",
        details=(
            Detail("crash_kind", "how it happened", (("raised", "the agent's code raised"),)),
            Detail("hook", "`on_idle_timeout`"),
            _EXCEPTION_TYPE,
        ),
    ),
    CodeInfo(
        code=SessionErrorCode.IDLE_TIMEOUT_CALLBACK_TIMED_OUT,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.AGENT,
        message="Sorry, something went wrong.",
        recoverable=True,
        when="The agent's on_idle_timeout hook took longer than its 30 s of grace.",
        cause="`on_idle_timeout` waits for something slow, or never returns.",
        remedy="Bound what the hook waits for to well under 30 seconds, such as `async with "
        "asyncio.timeout(20): …`, and leave slow work to a service of your own. Then upload and deploy the "
        "agent again.",
        follows="The hook is not waited for any longer: the client gets this error, is told of "
        "`SESSION_IDLE_TIMEOUT` right behind it, and gets a `session_close` with `idle_timeout`.",
    ),
    CodeInfo(
        code=SessionErrorCode.SESSION_IDLE_TIMEOUT,
        scope=ErrorScope.REMOTE,
        source=ErrorSource.RUNNER,
        message="The session ended because nothing happened for a while.",
        recoverable=False,
        when="Informational: nobody spoke or sent anything for the idle limit.",
        cause="Neither the user nor the agent did anything that counts as activity for the configured "
        "time: speech where `idle_timeout_voice_activity` is on, messages of the client where "
        "`idle_timeout_dc_inbound` is on.",
        remedy="Nothing is broken. If it came too soon: `voicethere projects session-settings set "
        "idle_timeout_seconds 120` (voice) or `data_only_idle_timeout_seconds` (data), or turn "
        "`idle_timeout_enabled` off; then `voicethere deploy`. A client that only listens may send "
        "`keepalive` messages.",
        follows="A `session_close` with code `idle_timeout` follows it; a client that gets only that "
        "reports the same code. No reconnect follows. `IDLE_TIMEOUT_CALLBACK_FAILED` or "
        "`IDLE_TIMEOUT_CALLBACK_TIMED_OUT` may come before it.",
    ),
    CodeInfo(
        code=SessionErrorCode.PROVISIONING_FAILED,
        scope=ErrorScope.LOCAL,
        source=ErrorSource.PROVISIONING,
        message="The session could not be started.",
        recoverable=False,
        when="The job that starts the session failed, or the session service answered with an error.",
        cause="The project has no deployed build, no runner is there, every runner is full, the key is not "
        "allowed, or the service is out of reach. The message names the failure code.",
        remedy="NOT_DEPLOYED: `voicethere build upload FILE --promote`, then `voicethere deploy --wait`. "
        "RUNNER_UNAVAILABLE: is the runner up? `voicethere doctor` says what keeps it from starting. "
        "CAPACITY_EXCEEDED: raise `voicethere up --capacity`, or start with `wait_for_capacity`. "
        "HTTP_ERROR: check the address and the key (`voicethere api-keys list`); a client key starts "
        "sessions of its own project only.",
        follows="The client's `start_session` tells `on_session_error` once and returns a result that is "
        "not `ok`; there is no connection, and nothing else follows. Where a session existed, the session "
        "service stores a row with the same code; `HTTP_ERROR` has none.",
        details=(_FAILURE_CODE,),
    ),
    CodeInfo(
        code=SessionErrorCode.PROVISIONING_TIMEOUT,
        scope=ErrorScope.LOCAL,
        source=ErrorSource.PROVISIONING,
        message="Starting the session took too long.",
        recoverable=True,
        when="The session was not ready within the client's or the service's limit.",
        cause="Every runner is busy or slow to answer, so that the session was not ready within the "
        "client's `timeout` (120 s by default), or a runner did not accept it within the service's 30 s.",
        remedy="Try again. If it persists: raise `voicethere up --capacity` or the client's `timeout`, and "
        "look at `on_status` for the place in the line. `voicethere sessions list` shows what holds the "
        "runners, `voicethere doctor` what slows the machine down.",
        follows="The client's `start_session` tells `on_session_error` once and returns a result that is "
        "not `ok`. A session that was made after all and that nobody joins is removed after 2 minutes, "
        "without an error.",
        details=(_FAILURE_CODE,),
    ),
    CodeInfo(
        code=SessionErrorCode.WEBRTC_CONNECTION_FAILED,
        scope=ErrorScope.LOCAL,
        source=None,
        message="The connection to the agent failed.",
        recoverable=False,
        when="The client's peer connection reached the state failed.",
        cause="The path between client and runner was lost or never worked: another network, a firewall "
        "that blocks UDP, a runner that offers addresses which the client cannot reach, or a signaling "
        "socket that was refused.",
        remedy="Allow UDP between client and runner. `voicethere doctor` lists the addresses that the "
        "runner offers; `voicethere up --host-address ADDRESS` names others, such as the public one of a "
        "machine behind NAT. Look for a row of the session too: `voicethere projects errors list --session "
        "ID`.",
        follows="In a session that was connected the client tries to come back by itself: it reports this "
        "with `recoverable: true` first, tries 1, 3, 7 and 15 s after the loss, and reports it with "
        "`recoverable: false` only when the last try has failed. Only the client sees it; no row is stored "
        "for it. A session whose client does not come back within 30 s ends on the platform as "
        "`client_disconnected`, which is no error.",
        note_on_recoverable="True exactly while another try to come back follows.",
    ),
    CodeInfo(
        code=SessionErrorCode.WEBRTC_CONNECTION_CLOSED,
        scope=ErrorScope.LOCAL,
        source=None,
        message="The connection to the agent was closed.",
        recoverable=False,
        when="The connection closed although nobody asked for it.",
        cause="The runner ended the session (it was shut down, for example), or the connection went away, "
        "without a `session_error` that explains it.",
        remedy="Look the session up by its id: `voicethere projects errors list --session ID` shows what "
        "is stored of it, `voicethere sessions list` its end reason. After `runner_shutdown` start a new "
        "session.",
        follows="Where the connection went away by itself, the client tries to come back, as after "
        "`WEBRTC_CONNECTION_FAILED`: `recoverable: true` first, then false when the last try has failed. "
        "After a `session_close` no try follows. Only the client sees it; no row is stored for it. It is "
        "not reported where a `session_error` has explained the end already, nor after "
        "`client_close_signal` and `agent_disconnected`, which are clean ends. `session_close` with "
        "`idle_timeout` is `SESSION_IDLE_TIMEOUT` instead.",
        note_on_recoverable="True exactly while another try to come back follows.",
    ),
    CodeInfo(
        code=SessionErrorCode.WEBRTC_CONNECT_TIMEOUT,
        scope=ErrorScope.LOCAL,
        source=None,
        message="Connecting to the agent took too long.",
        recoverable=True,
        when="The client was not connected within its limit.",
        cause="No network path between client and runner was found within the client's `connect_timeout`, "
        "or only a part of what the mode needs came up (a voice session is connected once audio flows).",
        remedy="Try again. If it persists: allow UDP between client and runner, and compare the addresses "
        "that `voicethere doctor` lists with what the client can reach; `voicethere up --host-address "
        "ADDRESS` names others.",
        follows="Only the client sees it; no row is stored for it. `connect_session` raises `ConnectError` "
        "with the same error, and the client gives the session up, which then ends as "
        "`client_disconnected`.",
    ),
)

SESSION_ERROR_CODES: tuple[str, ...] = tuple(code.value for code in SessionErrorCode)
"""All codes, in the seed's order."""

REMOTE_CODES: frozenset[SessionErrorCode] = frozenset(
    code for code, info in CATALOG.items() if info.scope is ErrorScope.REMOTE
)
LOCAL_CODES: frozenset[SessionErrorCode] = frozenset(SessionErrorCode) - REMOTE_CODES
