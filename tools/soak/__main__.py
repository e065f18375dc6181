"""`python -m tools.soak --minutes 60 [--engines] [--report docs/soak.md]`.

Exits with 1 where something grew that should not have, or was not told or stored as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from tools.soak import report
from tools.soak.run import Plan, Soaked, soak
from tools.soak.target import embedded, on_engines

_FOLDER = Path("build/soak")


def main() -> int:
    """Run it, print what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tools.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="behind warming up (default: 5)")
    parser.add_argument("--engines", action="store_true", help="roles apart, on Redis and PostgreSQL")
    parser.add_argument("--rate", type=float, default=2.0, help="sessions started a second (default: 2)")
    parser.add_argument("--phase", type=float, default=None, help="seconds of traffic between two rests")
    parser.add_argument("--deploy-every", type=float, default=None, help="seconds")
    parser.add_argument("--seed", type=int, default=1, help="of the mix")
    parser.add_argument("--report", type=Path, default=None, help="write this page, and its chart")
    parser.add_argument(
        "--samples", type=Path, default=_FOLDER / "samples.jsonl", help="where every sample goes"
    )
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    phase = arguments.phase or min(120.0, max(40.0, seconds / 30))
    plan = Plan(
        seconds=seconds,
        warm_up=min(phase, 60.0),
        phase=phase,
        rate=arguments.rate,
        deploy_every=arguments.deploy_every or phase / 2.5,
        seed=arguments.seed,
    )
    # A process that the kernel ends for a mistake of a library says where.
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    soaked = asyncio.run(_soak(plan, arguments.samples, engines=arguments.engines))
    print("\n".join(report.lines(soaked)))
    if arguments.report is not None:
        report.write_page(soaked, arguments.report, [*_plain(sys.argv[1:])])
    return 0 if soaked.good else 1


async def _soak(plan: Plan, samples: Path, *, engines: bool) -> Soaked:
    async with on_engines() if engines else embedded() as target:
        return await soak(target, plan, samples, _tell)


def _tell(words: str) -> None:
    print(words, flush=True)


def _plain(options: list[str]) -> list[str]:
    """Without the folders of this machine."""
    return [Path(option).name if option.startswith("/") else option for option in options]


if __name__ == "__main__":
    sys.exit(main())
