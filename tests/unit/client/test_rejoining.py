"""When a client tries to come back, in virtual time: nothing here waits for a clock."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from voicethere.client.rejoining import LAST_TRY_SECONDS, REJOIN_DELAYS_SECONDS, RejoinFailed, quiet_delays
from voicethere.client.rejoining import rejoin as rejoin_session
from voicethere.testing.virtual_time import in_virtual_time


def tries(attempt: Callable[[int], Awaitable[None]], **options: Any) -> tuple[list[float], float, str | None]:
    """When each try began, when all was over, and the outcome."""
    began: list[float] = []

    async def once() -> None:
        began.append(round(asyncio.get_running_loop().time(), 3))
        await attempt(len(began))

    @in_virtual_time
    async def run() -> tuple[list[float], float, str | None]:
        outcome = await rejoin_session(once, **({"delays": REJOIN_DELAYS_SECONDS} | options))
        return began, round(asyncio.get_running_loop().time(), 3), outcome

    return run()


async def refused(number: int) -> None:
    raise RejoinFailed(f"no gateway ({number})")


async def hangs(number: int) -> None:
    await asyncio.Event().wait()


def test_tries_that_fail_at_once_begin_after_1_3_7_and_15_seconds() -> None:
    began, over, outcome = tries(refused)
    assert began == [1, 3, 7, 15]
    assert over == 15
    assert outcome == "It could not be resumed in 4 tries; the last time no gateway (4)."


def test_tries_that_hang_begin_at_the_same_times_and_the_last_one_has_8_seconds() -> None:
    began, over, outcome = tries(hangs)
    assert began == [1, 3, 7, 15]
    assert over == 15 + LAST_TRY_SECONDS
    assert outcome == "It could not be resumed in 4 tries; the last time the connection did not come up."


def test_what_passed_before_counts_for_the_first_delay() -> None:
    assert tries(refused, elapsed=0.5)[0] == [0.5, 2.5, 6.5, 14.5]
    assert tries(refused, elapsed=5.0)[0][0] == 0


def test_the_first_try_that_succeeds_is_the_last() -> None:
    async def third_time_lucky(number: int) -> None:
        if number < 3:
            await refused(number)
        await asyncio.sleep(0.25)

    assert tries(third_time_lucky) == ([1, 3, 7], 7.25, None)


def test_a_refusal_for_good_ends_it() -> None:
    async def over(number: int) -> None:
        raise RejoinFailed("the session is over", final=True)

    assert tries(over) == ([1], 1, "It could not be resumed: the session is over.")


def test_quiet_tries_go_on_at_the_longest_delay_and_never_begin_without_any() -> None:
    assert list(itertools.islice(quiet_delays((1, 2)), 5)) == [1, 2, 2, 2, 2]
    assert list(quiet_delays(())) == []
