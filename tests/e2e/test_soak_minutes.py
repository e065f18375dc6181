"""A soak of a minute: the one of an hour is the same code, `make soak ARGS="--minutes 60"`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools.soak.report import lines, write_page
from tools.soak.run import Plan, soak
from tools.soak.target import embedded

pytestmark = [pytest.mark.slow, pytest.mark.alone, pytest.mark.timeout(300)]


async def test_a_minute_of_mixed_traffic_leaves_nothing_behind(tmp_path: Path) -> None:
    plan = Plan(seconds=36, warm_up=4, phase=36, rate=2, deploy_every=12)
    async with embedded() as target:
        soaked = await soak(target, plan, tmp_path / "samples.jsonl", print)
    assert soaked.good, "\n".join(lines(soaked))
    assert soaked.account.sessions.total() > 40
    assert soaked.account.caused.total() > 10
    assert soaked.account.deploys > 2
    write_page(soaked, tmp_path / "soak.md", ["--minutes", "1"])
    assert "Everything is flat or explained" in (tmp_path / "soak.md").read_text()
