"""What is done to the platform, and when: a pure function of the seed and the length of the run.

Knows the names of what can be hit. Does not know how anything is killed, cut off or filled.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Sequence

import msgspec

SECONDS_PER_ACTION = 3.0
CALM_SECONDS = 2.0
"""At the start, so that load flows before anything breaks."""
_BREATH_SECONDS = 1.0
"""Between two actions on one target."""


class Kind(enum.StrEnum):
    """What is done."""

    KILL = "kill"
    """SIGKILL; started again after the action's seconds."""
    PAUSE = "pause"
    """SIGSTOP, and SIGCONT after the action's seconds."""
    PARTITION = "partition"
    """The host's cable is pulled."""
    CUT = "cut"
    """What the host sends to the data host gets lost; everybody else still hears it."""
    FILL = "fill"
    """The disk that the host's spools are on is full."""
    STARVE = "starve"
    """The same, while Redis is down: the spool is needed and is full."""


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """`at` and `seconds` count from the start of the load; `target` is a process or, for the network and
    the disk, a host."""

    at: float
    kind: Kind
    target: str
    seconds: float

    @property
    def until(self) -> float:
        """When it is undone."""
        return self.at + self.seconds


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """The names of what there is. A runner's host has its name; so has a gateway's and a worker's.

    `gateways` are session services (signaling gateways), `chats` chat gateways.
    """

    gateways: Sequence[str] = ("gw1", "gw2")
    chats: Sequence[str] = ("cg1", "cg2")
    workers: Sequence[str] = ("w1", "w2")
    runners: Sequence[str] = ("r1", "r2", "r3")
    producers: Sequence[str] = ("p1", "p2", "p3")
    control: str = "control"
    redis: str = "redis"
    postgres: str = "postgres"
    data: str = "data"

    @property
    def hosts(self) -> Sequence[str]:
        """Every host that can be partitioned."""
        return (self.data, *self.gateways, *self.chats, *self.workers, *self.runners)

    @property
    def processes(self) -> Sequence[str]:
        """Every process that can be killed."""
        return (
            self.redis,
            self.postgres,
            self.control,
            *self.gateways,
            *self.chats,
            *self.workers,
            *self.runners,
            *self.producers,
        )


class _Menu(msgspec.Struct, frozen=True):
    """One thing that can be done, to one of `targets`, for a time between two bounds."""

    kind: Kind
    targets: Sequence[str]
    shortest: float
    longest: float


def plan(seed: int, seconds: float, site: Site | None = None) -> list[Action]:
    """Every action of a run, in order. All are undone within `seconds`.

    Each kind occurs at least once, and in a run of a minute or more each kind to each sort of target. Nothing
    is done twice at once to one target.

    Example:
        >>> plan(1, 120)[0]
        Action(at=2.6, kind=<Kind.PAUSE: 'pause'>, target='redis', seconds=3.1)

    Raises:
        ValueError: less than 20 seconds: not everything can be done and undone in them.
    """
    if seconds < 20:
        raise ValueError(f"a run of {seconds:g} s is too short; it must be 20 s or longer")
    site = site or Site()
    chance = random.Random(seed)  # noqa: S311 - a schedule that anybody may know
    dishes = _dishes(chance, _menu(site), int(seconds / SECONDS_PER_ACTION))
    slot = (seconds - CALM_SECONDS) / len(dishes)
    slots = list(range(len(dishes)))
    chance.shuffle(slots)
    actions: list[Action] = []
    for number, dish in zip(slots, dishes, strict=True):
        length = round(min(chance.uniform(dish.shortest, dish.longest), seconds / 4), 2)
        at = round(CALM_SECONDS + slot * (number + chance.random()), 2)
        target = chance.choice(dish.targets)
        actions += _placed(
            Action(at=at, kind=dish.kind, target=target, seconds=length), actions, seconds, site
        )
    return sorted(actions, key=lambda action: (action.at, action.target))


def _menu(site: Site) -> list[_Menu]:
    """What there is to choose from; the first of each kind comes in every run."""
    kill, pause, partition = Kind.KILL, Kind.PAUSE, Kind.PARTITION
    return [
        # First of all: it needs two things to be free at once.
        _Menu(Kind.STARVE, site.runners, 4.0, 9.0),
        _Menu(kill, site.runners, 0.2, 3.0),
        _Menu(pause, [site.redis], 1.0, 8.0),
        _Menu(partition, site.runners, 1.0, 10.0),
        _Menu(Kind.CUT, [*site.runners, *site.gateways, *site.chats], 1.0, 10.0),
        _Menu(Kind.FILL, site.runners, 3.0, 10.0),
        _Menu(kill, [site.redis], 0.2, 3.0),
        _Menu(kill, [site.postgres], 0.2, 3.0),
        _Menu(kill, site.gateways, 0.2, 3.0),
        _Menu(kill, site.chats, 0.2, 3.0),
        _Menu(kill, site.workers, 0.2, 3.0),
        _Menu(partition, [site.data], 1.0, 10.0),
        _Menu(pause, site.runners, 1.0, 8.0),
        _Menu(pause, [site.postgres], 1.0, 8.0),
        _Menu(pause, site.gateways, 1.0, 8.0),
        _Menu(pause, site.chats, 1.0, 8.0),
        _Menu(pause, site.workers, 1.0, 8.0),
        _Menu(partition, site.gateways, 1.0, 10.0),
        _Menu(partition, site.chats, 1.0, 10.0),
        _Menu(partition, site.workers, 1.0, 10.0),
        _Menu(kill, site.producers, 0.2, 3.0),
        _Menu(pause, site.producers, 1.0, 8.0),
        _Menu(kill, [site.control], 0.2, 3.0),
    ]


def _dishes(chance: random.Random, menu: Sequence[_Menu], count: int) -> list[_Menu]:
    """One of each kind, then one of each dish, then whatever comes."""
    kinds: set[Kind] = set()
    musts: list[_Menu] = []
    others: list[_Menu] = []
    for dish in menu:
        (others if dish.kind in kinds else musts).append(dish)
        kinds.add(dish.kind)
    chance.shuffle(others)
    dishes = musts + others[: max(0, count - len(musts))]
    while len(dishes) < count:
        dishes.append(chance.choice(menu))
    return dishes


def _placed(action: Action, others: Sequence[Action], seconds: float, site: Site) -> Sequence[Action]:
    """The action at its time or, where its target is busy then, at the first one that is free; nothing where
    there is none. STARVE comes with a Redis that goes down meanwhile."""
    times = [action.at, *(CALM_SECONDS + step for step in range(int(seconds)))]
    for at in times:
        parts = [msgspec.structs.replace(action, at=at)]
        if action.kind is Kind.STARVE:
            parts.append(
                Action(at=at + 0.5, kind=Kind.KILL, target=site.redis, seconds=round(action.seconds - 1.5, 2))
            )
        if at + action.seconds < seconds and not any(
            _clash(part, other) for part in parts for other in others
        ):
            return parts
    return []


def _clash(one: Action, other: Action) -> bool:
    return (
        thing_of(one) == thing_of(other)
        and one.at < other.until + _BREATH_SECONDS
        and other.at < one.until + _BREATH_SECONDS
    )


def thing_of(action: Action) -> tuple[str, str]:
    """What is hit: a process, a host's cable, or a host's disk."""
    if action.kind in (Kind.KILL, Kind.PAUSE):
        return ("process", action.target)
    if action.kind in (Kind.PARTITION, Kind.CUT):
        return ("cable", action.target)
    return ("disk", action.target)
