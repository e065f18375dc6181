"""The schedule of a torture run: seeded, complete, and never twice at once on one thing."""

import itertools

import pytest

from tools.torture.schedule import CALM_SECONDS, Action, Kind, Site, plan

SEEDS = range(40)
SITE = Site()


def things(action: Action) -> tuple[str, str]:
    what = {Kind.KILL: "process", Kind.PAUSE: "process", Kind.PARTITION: "cable", Kind.CUT: "cable"}
    return what.get(action.kind, "disk"), action.target


def test_the_same_seed_gives_the_same_schedule() -> None:
    assert plan(7, 120) == plan(7, 120)
    assert plan(7, 120) != plan(8, 120)


@pytest.mark.parametrize("seconds", [30.0, 120.0, 600.0])
def test_each_kind_occurs_in_every_run(seconds: float) -> None:
    for seed in SEEDS:
        assert {action.kind for action in plan(seed, seconds)} == set(Kind), seed


def test_two_minutes_hit_every_sort_of_process_and_host() -> None:
    for seed in SEEDS:
        actions = plan(seed, 120)
        killed = {action.target for action in actions if action.kind is Kind.KILL}
        paused = {action.target for action in actions if action.kind is Kind.PAUSE}
        partitioned = {action.target for action in actions if action.kind is Kind.PARTITION}
        for sort in (SITE.runners, SITE.gateways, SITE.chats, SITE.workers, SITE.producers):
            assert killed & set(sort), (seed, sort)
        assert {SITE.redis, SITE.postgres} <= killed, seed
        assert len(paused) >= 3, seed
        assert len(partitioned) >= 3, seed


@pytest.mark.parametrize("seconds", [20.0, 120.0])
def test_everything_is_undone_before_the_end_and_nothing_is_hit_twice_at_once(seconds: float) -> None:
    for seed in SEEDS:
        actions = plan(seed, seconds)
        assert actions == sorted(actions, key=lambda action: action.at)
        for action in actions:
            assert action.at >= CALM_SECONDS
            assert action.until < seconds
            assert action.seconds >= 0.2
        for one, other in itertools.combinations(actions, 2):
            if things(one) == things(other):
                assert one.until <= other.at or other.until <= one.at, (seed, one, other)


def test_a_spool_that_is_needed_and_full_comes_with_a_redis_that_is_down() -> None:
    for seed in SEEDS:
        actions = plan(seed, 120)
        for starved in (action for action in actions if action.kind is Kind.STARVE):
            assert any(
                action.kind is Kind.KILL
                and action.target == SITE.redis
                and starved.at < action.at
                and action.until <= starved.until
                for action in actions
            ), (seed, starved)


def test_targets_are_those_of_the_site() -> None:
    for seed in SEEDS:
        for action in plan(seed, 120):
            allowed = SITE.processes if things(action)[0] == "process" else SITE.hosts
            assert action.target in allowed


def test_a_run_too_short_for_all_of_it_is_refused() -> None:
    with pytest.raises(ValueError, match="20 s or longer"):
        plan(1, 10)
