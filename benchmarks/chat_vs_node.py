"""The chat core next to Redux Toolkit and zod in Node: actions, frames and memory, in turns in one run.

    python benchmarks/chat_vs_node.py [--rounds 9] [--json]

Needs Node 20 or later and npm (Debian: `apt install nodejs npm`), and installs what the lock file in
`chat_vs_node` says the first time. Takes a minute. Node runs its production build. Three forms of Redux do
what our reducers do, with the same fields, history, normalization and window for duplicates:

- `idiomatic`: `createSlice` with `prepare`, `configureStore`, as Redux Toolkit's documentation says.
- `tuned`: that with immer's switches for speed (no freezing, its own array methods).
- `fastest`: by hand, without Redux Toolkit: spread copies, redux' bare store, no immer, no middleware.

Every round asks each of the four sides once. A ratio is the median of the rounds' own ratios, so that what
else the machine does cancels out; it says how many times as many a second we do.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from chat_state import CONVERSATIONS, FRAMES, ChatCore, enough, frame, load

HERE = Path(__file__).with_suffix("")
FORMS = ("idiomatic", "tuned", "fastest")
OLDEST_NODE = 20
IDLE = 5_000
"""Conversations whose memory is measured."""

Side = Callable[[str, int, int], float]
"""Does one round: what, at how many conversations, how often; the seconds that it took."""


class NodeProcess:
    """Does rounds in one Node process, in one form of Redux."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def round(self, what: str, conversations: int, count: int) -> float:
        return self._ask(what=what, conversations=conversations, count=count)

    def memory(self, conversations: int, messages: int) -> float:
        return self._ask(what="memory", conversations=conversations, messages=messages)

    def _ask(self, **asked: Any) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("Node ended; what it wrote stands above")
        return float(json.loads(answer))


@contextmanager
def node_process(form: str, frames: Path) -> Iterator[NodeProcess]:
    process = subprocess.Popen(
        ["node", "--expose-gc", "measure.mjs", form, str(frames)],
        cwd=HERE,
        env={**os.environ, "NODE_ENV": "production"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield NodeProcess(process)
    finally:
        process.kill()
        process.communicate()


def node_version() -> str | None:
    """Node's version, or None where it is missing or too old."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return found if int(found.lstrip("v").partition(".")[0]) >= OLDEST_NODE else None


def install() -> None:
    """What the lock file says, once."""
    if (HERE / "node_modules").is_dir():
        return
    print(f"installing {HERE.name}/package-lock.json", file=sys.stderr)
    done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=HERE, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"npm ci failed in {HERE}:\n{done.stderr.strip()}")


def in_turns(sides: dict[str, Side], what: str, conversations: int, rounds: int) -> dict[str, Any]:
    """Steps per second of each side, and how many times as many the first side does as each of the others."""

    def once(side: Side) -> Callable[[int], float]:
        return lambda count: side(what, conversations, count)

    counts = {name: enough(once(side)) for name, side in sides.items()}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            rates[name].append(counts[name] / once(side)(counts[name]))
    ours = next(iter(sides))
    ratios = {
        name: round(statistics.median(a / b for a, b in zip(rates[ours], found, strict=True)), 2)
        for name, found in rates.items()
        if name != ours
    }
    return {
        "per_second": {name: round(statistics.median(found)) for name, found in rates.items()},
        "ratios": ratios,
    }


def measure(rounds: int) -> dict[str, Any]:
    core = ChatCore()

    def ours(what: str, conversations: int, count: int) -> float:
        return float(getattr(core, what)(conversations, count))

    def as_client(what: str, conversations: int, count: int) -> float:
        return core.client_frames(conversations, count)

    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="voicethere-frames-")))
        frames = directory / "frames"
        frames.write_text("".join(frame(number) + "\n" for number in range(FRAMES)))
        nodes = {form: stack.enter_context(node_process(form, frames)) for form in FORMS}
        sides: dict[str, Side] = {"ours": ours, **{form: node.round for form, node in nodes.items()}}
        growing: dict[str, Side] = {
            "at 1": lambda what, _, count: ours(what, CONVERSATIONS[0], count),
            "at 10,000": lambda what, _, count: ours(what, CONVERSATIONS[-1], count),
        }
        memory = {
            str(messages): {
                "ours": round(core.memory(IDLE, messages)),
                "node": round(nodes["fastest"].memory(IDLE, messages)),
            }
            for messages in (0, 20)
        }
        return {
            "push_error": {str(n): in_turns(sides, "push_error", n, rounds) for n in CONVERSATIONS},
            "push_error_as_they_grow": {"-": in_turns(growing, "push_error", 0, rounds)},
            "frames": {str(n): in_turns(sides, "frames", n, rounds) for n in CONVERSATIONS},
            "frames_as_client": {
                "50": in_turns({"ours": as_client, **{k: sides[k] for k in FORMS}}, "frames", 50, rounds)
            },
            "read": {"-": in_turns({"ours": ours, "zod": nodes["fastest"].round}, "read", 1, rounds)},
            "memory_bytes": memory,
        }


def show(found: dict[str, Any]) -> None:
    print(f"Node {found['node']}, Python {found['python']}")
    print(f"load before: {found['load']}; after: {found['load_after']}")
    for what in ("push_error", "push_error_as_they_grow", "frames", "frames_as_client", "read"):
        print(f"\n{what}, per second")
        for conversations, row in found[what].items():
            rates = "  ".join(f"{name} {rate:>9,}" for name, rate in row["per_second"].items())
            ratios = "  ".join(f"{name} {ratio:g}x" for name, ratio in row["ratios"].items())
            print(f"  {conversations:>6} conversations: {rates}   | {ratios}")
    print()
    for messages, row in found["memory_bytes"].items():
        ours, node = f"{row['ours']:,}", f"{row['node']:,}"
        print(f"an idle conversation with {messages} messages: {ours} bytes, in Node {node}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9, help="of all sides in turns")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    node = node_version()
    if node is None:
        print(f"skipped: needs Node {OLDEST_NODE} or later and npm (Debian: apt install nodejs npm)")
        return
    install()
    found = {"node": node, "python": sys.version.split()[0], "load": load(), **measure(arguments.rounds)}
    found["load_after"] = load()
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        show(found)


if __name__ == "__main__":
    main()
