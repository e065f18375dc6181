"""The life of one session, as a pure state machine: `machine` has the rules."""

from voicethere.core.session import effects, events
from voicethere.core.session.events import AgentInput, Event, Timer
from voicethere.core.session.machine import step
from voicethere.core.session.state import Phase, Rules, SessionState

__all__ = ["AgentInput", "Event", "Phase", "Rules", "SessionState", "Timer", "effects", "events", "step"]
