"""How to bring about the faults that lie in the agent's code or process: by what its client says or does.

Nothing here knows what a fault must give.
"""

from __future__ import annotations

from voicethere.cli.ears import DidNotHappen
from voicethere.cli.faults.lab import IDLE_SECONDS, OUTCOME_SECONDS, Trial
from voicethere.client import Session

BY_GO = (
    "raise_in_data_message",
    "raise_in_error_hook",
    "raise_in_background_task",
    "hard_exit",
    "soft_exit",
    "killed",
    "segmentation_fault",
    "out_of_memory",
    "loop_in_coroutine",
    "loop_in_plain_code",
    "fork_bomb",
    "flood_of_messages",
    "gigabyte_logged",
)
"""The agent does it when it is told to by a chat message."""
BY_STARTING = (
    "raise_in_agent_start",
    "raise_in_session_start",
    "import_error",
    "syntax_error",
    "no_define_agent",
    "slow_start",
)
BY_SPEECH = ("raise_in_speech_event", "raise_in_speech_final")
BY_WAITING = ("raise_in_idle_timeout", "idle_timeout_overrun", "idle_limit")


async def agent_fault(trial: Trial) -> None:
    """One session with the fault that the trial names."""
    if trial.fault in BY_WAITING:
        trial.deployed = trial.lab.deployed[f"{trial.mode}-idle"]
    credentials = await trial.start()
    if credentials is None:
        raise DidNotHappen("the session could not be started")
    if trial.fault in BY_STARTING:
        trial.mark()
    async with trial.connected(credentials) as session:
        if session is not None:
            await _provoke(trial, session)
    if trial.fault_at is None and (marked := trial.ears.message("fault")) is not None:
        trial.fault_at = trial.moment(marked["at"])


async def _provoke(trial: Trial, session: Session) -> None:
    if trial.fault in BY_STARTING:
        await trial.outcome(session)
        return
    await trial.ears.until("the agent's start", lambda: trial.ears.message("started"))
    if trial.fault in BY_WAITING:
        await _wait_it_out(trial, session)
    elif trial.fault in BY_SPEECH:
        await trial.say("good morning")
        await trial.ears.until("the fault", lambda: trial.ears.message("fault"))
        await trial.outcome(session)
    elif trial.fault == "raise_in_binary":
        session.send_binary(b"anything", "control")
        await trial.outcome(session)
    elif trial.fault == "raise_in_session_end":
        trial.mark()
        await session.close()
    else:
        session.send_chat("go")
        await trial.outcome(session)


async def _wait_it_out(trial: Trial, session: Session) -> None:
    """Do nothing at all: the session's idle limit is the fault."""
    await trial.ears.until(
        "the end of an idle session",
        lambda: any(not error.recoverable for _, error in trial.ears.errors) or None,
        seconds=IDLE_SECONDS + OUTCOME_SECONDS,
    )
