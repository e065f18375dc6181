"""The course of a soak: warm up, then phases of traffic with a rest after each, then the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tools.soak.account import Account
from tools.soak.agents import bundle
from tools.soak.bounds import Verdict, judge
from tools.soak.caller import World
from tools.soak.measures import Observer, Sample
from tools.soak.target import Target
from tools.soak.traffic import KEPT_WARM, Traffic
from voicethere.adapters.speech.espeak import EspeakSynthesizer
from voicethere.cli.process_memory import EVERY_SECONDS, collect
from voicethere.testing.platform_process import Deployed, Operator

SAMPLE_EVERY = 5.0
REST_PATIENCE = 60.0
SETTLE_SECONDS = EVERY_SECONDS + 1.5
"""At rest: what ends a moment after its session has ended by then, and a runner has given memory back."""
_NEVER_IDLE = {"idle_timeout_enabled": False}
_PROJECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "data": ("data", {**_NEVER_IDLE}),
    "voice": ("voice+data", {**_NEVER_IDLE, "error_message": "Sorry."}),
    "silent": ("data", {"idle_timeout_seconds": 30, "data_only_idle_timeout_seconds": 30}),
    "moved": ("data", {**_NEVER_IDLE}),
    "resident data": ("data", {**_NEVER_IDLE}),
    "resident voice": ("voice+data", {**_NEVER_IDLE}),
    "resident chat": ("data", {**_NEVER_IDLE}),
}


@dataclass(frozen=True)
class Plan:
    """Times in seconds; `rate` is sessions started a second."""

    seconds: float
    warm_up: float
    phase: float
    rate: float
    deploy_every: float
    seed: int = 1


@dataclass
class Soaked:
    """What came of it."""

    target: str
    plan: Plan
    account: Account
    samples: list[Sample] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Everything flat or explained, every error stored once and told, nothing else."""
        return not self.account.difference_count and all(verdict.good for verdict in self.verdicts)


async def soak(target: Target, plan: Plan, samples: Path, tell: Callable[[str], None]) -> Soaked:
    """Soak the target; `samples` is a file that is written anew, `tell` hears of the progress."""
    account = Account(tell)
    hello, rate = await _hello()
    # A connection that is kept may be closed by the server just when it is used again.
    unkept = httpx.Limits(max_keepalive_connections=0)
    async with Operator(target.control) as operator, httpx.AsyncClient(limits=unkept) as http:
        world = World(
            services=list(target.services),
            chats=list(target.chats),
            operator=operator,
            http=http,
            account=account,
            hello=hello,
            hello_rate=rate,
        )
        projects = {name: await _deployed(operator, name) for name in _PROJECTS}
        traffic = Traffic(world, projects, seed=plan.seed)
        observer = Observer(target, samples)
        result = Soaked(target=target.name, plan=plan, account=account)
        async with traffic.always():
            await _course(traffic, observer, account, plan, tell)
        result.samples = observer.samples()
    result.verdicts = judge(result.samples)
    _check_rows(result)
    return result


async def _course(
    traffic: Traffic, observer: Observer, account: Account, plan: Plan, tell: Callable[[str], None]
) -> None:
    await traffic.one_of_each()
    await traffic.phase(plan.warm_up, plan.rate)
    first = await _rest(observer, account, None)
    began = time.monotonic()
    tell(_line(first, account))
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        while time.monotonic() - began < plan.seconds:
            over.clear()
            deploying = group.create_task(traffic.deploys(plan.deploy_every, over))
            looking = group.create_task(_look(observer, account, over))
            left = began + plan.seconds - time.monotonic()
            await traffic.phase(min(plan.phase, left), plan.rate)
            over.set()
            await asyncio.gather(deploying, looking)
            tell(_line(await _rest(observer, account, first), account))


async def _look(observer: Observer, account: Account, over: asyncio.Event) -> None:
    while not over.is_set():
        await asyncio.to_thread(observer.look, at_rest=False, driven=account.driven())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SAMPLE_EVERY):
                await over.wait()


async def _rest(observer: Observer, account: Account, first: Sample | None) -> Sample:
    """A sample once everything has ended that was going to; whatever has not by then will be seen in it."""
    await asyncio.sleep(SETTLE_SECONDS)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + (REST_PATIENCE if first is not None else 10.0)
    while loop.time() < deadline:
        seen = await asyncio.to_thread(observer.peek)
        ending = [
            name
            for name in ("agents/processes", "unfinished sessions/rows", "scratch/entries")
            if first is not None and seen.get(name, 0) > first.get(name, 0)
        ]
        if not ending and not seen["queue/items"]:
            break
        await asyncio.sleep(0.5)
    # What an application's collector would find some time later is not what the client library keeps.
    await collect()
    return await asyncio.to_thread(observer.look, at_rest=True, driven=account.driven())


def _check_rows(result: Soaked) -> None:
    """Errors stored = errors caused, over the whole database."""
    stored, caused = result.samples[-1]["session_errors/rows"], result.account.caused.total()
    if stored != caused:
        result.account.differs(f"{stored:.0f} errors are stored in all, {caused} were caused")


async def _deployed(operator: Operator, name: str) -> Deployed:
    mode, settings = _PROJECTS[name]
    deployed = await operator.deploy(bundle(1), name=f"Soak, {name}", mode=mode, session_settings=settings)
    if name in KEPT_WARM:
        change = {"key": "warm_pool_enabled", "value": True}
        await operator.ask("PATCH", f"/projects/{deployed.project_id}/settings", json=change)
    return deployed


async def _hello() -> tuple[bytes, int]:
    """Somebody who waits a little, says hello and is quiet for a second: PCM, and its rate in Hz."""
    synthesizer = EspeakSynthesizer()
    await synthesizer.open()
    try:
        parts = [part async for part in synthesizer.synthesize("hello")]
    finally:
        await synthesizer.aclose()
    rate = synthesizer.sample_rate
    return bytes(rate) + b"".join(parts) + bytes(2 * rate), rate


def _line(sample: Sample, account: Account) -> str:
    memory = ", ".join(
        f"{name.removesuffix('/megabytes')} {value:.1f}"
        for name, value in sorted(sample.items())
        if name.endswith("/megabytes")
    )
    return (
        f"{sample['seconds']:6.0f} s: {account.sessions.total()} sessions, {account.caused.total()} errors "
        f"caused, {account.difference_count} differences; MB at rest: {memory}"
    )
