"""What the parts of a coordinator share for one term of coordinating."""

from __future__ import annotations

import msgspec

from voicethere.adapters.store.store import Store
from voicethere.core.ports import Clock, RelayHub
from voicethere.roles.background import Background
from voicethere.roles.sessions.hosted import HostedSessions
from voicethere.roles.sessions.outcomes import Outcomes
from voicethere.roles.sessions.runners import LinkedRunners
from voicethere.roles.sessions.settings import SessionServiceSettings


class Term(msgspec.Struct, frozen=True, kw_only=True):
    """`hosted`, `runners` and `background` are of this term; the rest outlives it."""

    store: Store
    hub: RelayHub
    clock: Clock
    settings: SessionServiceSettings
    outcomes: Outcomes
    background: Background
    hosted: HostedSessions
    runners: LinkedRunners
