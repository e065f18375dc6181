"""The sandbox: which walls this machine has, and whether they hold for a real child."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from voicethere.cli.doctor.attempts import ATTEMPTS, FORBIDDEN_FILE
from voicethere.cli.doctor.findings import Finding, failed, in_thread, ok, warning
from voicethere.core.ports import ChildSpec, Mechanism, SandboxUnavailable

_ENTRY = "voicethere.cli.doctor.attempts"
_MORE_WALLS = (
    "Agents run with fewer walls (`voicethere up --strict-sandbox` would refuse). Use Linux 5.13 or newer "
    "with Landlock (`lsm=…,landlock` on the kernel's command line), and a container profile that allows it."
)


async def walls() -> Finding:
    """What confines children here, and what is missing."""
    from voicethere.adapters.sandbox import ZygoteSandbox
    from voicethere.adapters.sandbox.confinement import SECOND_WALLS

    with tempfile.TemporaryDirectory(prefix="vtd-") as folder:
        sandbox = ZygoteSandbox(preload=[], scratch_root=Path(folder) / "children")
        try:
            found = await in_thread(sandbox.mechanisms)
        except SandboxUnavailable as problem:
            return failed(str(problem), _MORE_WALLS)
        finally:
            await sandbox.aclose()
    return judge_walls(found, frozenset(wall.value for wall in SECOND_WALLS))


def judge_walls(mechanisms: Sequence[Mechanism], second: frozenset[str]) -> Finding:
    """`second` are the names of those that others stand in for."""
    there = [mechanism.name for mechanism in mechanisms if mechanism.available]
    missing = [mechanism for mechanism in mechanisms if not mechanism.available]
    found = ", ".join(there) or "none"
    if missing:
        words = "; ".join(f"{mechanism.name} ({mechanism.note})" for mechanism in missing)
        found = f"{found}. Missing: {words}"
    if any(mechanism.name not in second for mechanism in missing):
        return warning(found, _MORE_WALLS)
    return ok(found)


async def confined_child() -> Finding:
    """Start a child and let it try what it must not do."""
    from voicethere.adapters.sandbox import ZygoteSandbox

    with tempfile.TemporaryDirectory(prefix="vtd-") as folder:
        root = Path(folder)
        theirs = _forbidden_file(root)
        sandbox = ZygoteSandbox(preload=[_ENTRY], scratch_root=root / "children")
        try:
            await sandbox.open()
            began = time.monotonic()
            child = await sandbox.start(
                ChildSpec(
                    entry_point=f"{_ENTRY}:main", environment={FORBIDDEN_FILE: str(theirs)}, read_only=[]
                )
            )
            milliseconds = (time.monotonic() - began) * 1000
            answers = [frame async for frame in child.frames()]
            printed = [line.text async for line in child.output()]
            await child.aclose()
        except SandboxUnavailable as problem:
            return failed(f"no child can be started: {problem}", _MORE_WALLS)
        finally:
            await sandbox.aclose()
    if not answers:
        return failed(
            f"the child ended without an answer ({' / '.join(printed[-3:]) or 'and said nothing'})",
            "Please report this, with what `voicethere doctor --json` prints.",
        )
    return judge_attempts(msgspec.json.decode(answers[0], type=dict[str, str | None]), milliseconds)


def _forbidden_file(root: Path) -> Path:
    """A file that nothing but the sandbox keeps from the child, which may have another user id."""
    file = root / "private" / "file"
    file.parent.mkdir()
    file.write_text("not the child's")
    file.chmod(0o644)
    file.parent.chmod(0o777)
    root.chmod(0o755)
    return file


def judge_attempts(stopped: Mapping[str, str | None], milliseconds: float) -> Finding:
    """`stopped` is attempt → what stopped it."""
    began = f"a confined child started in {milliseconds:.0f} ms"
    allowed = [name for name in ATTEMPTS if stopped.get(name, "not tried") is None]
    denied = [name for name in ATTEMPTS if name not in allowed]
    if allowed:
        return warning(
            f"{began}, and these were allowed to it: {', '.join(allowed)}",
            f"Run no agents here that you do not trust. {_MORE_WALLS}",
        )
    return ok(f"{began}; denied to it: {', '.join(denied)}")
