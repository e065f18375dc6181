"""What the control plane stands on. The routes are functions of this object."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from voicethere.adapters.store.store import Store
from voicethere.core.ports import BundleReport, BundleStore, BundleVerifier, Clock, ErrorQueuePort

_VERIFICATIONS_AT_ONCE = 2


@dataclass(frozen=True, kw_only=True)
class ControlPlane:
    """`max_idle_seconds` is the operator's top for both idle limits of a project, in seconds."""

    store: Store
    bundles: BundleStore
    verifier: BundleVerifier
    queue: ErrorQueuePort
    clock: Clock
    max_idle_seconds: int = 120
    _verifying: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_VERIFICATIONS_AT_ONCE))

    async def verify(self, data: bytes) -> BundleReport:
        """Load a bundle in the sandbox; only a few at a time, each costs a process.

        Raises:
            SandboxUnavailable: no child can be started now.
        """
        async with self._verifying:
            return await self.verifier.verify(data)
