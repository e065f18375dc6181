"""A runner of its own for tests that kill it: opens a sandbox, starts a child, says who is who, waits.

`python sandbox_runner.py SCRATCH_ROOT`; prints one JSON line.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from voicethere.adapters.sandbox import ZygoteSandbox
from voicethere.core.ports import ChildSpec


async def main() -> None:
    sandbox = ZygoteSandbox(
        preload=["sandbox_children"], scratch_root=Path(sys.argv[1]), import_from=[Path(__file__).parent]
    )
    spec = ChildSpec(entry_point="sandbox_children:clutter", environment={}, read_only=[])
    children = [await sandbox.start(spec) for _ in range(3)]
    for child in children:
        assert await anext(child.frames()) == b"done"
    print(
        json.dumps({"zygote": sandbox.zygote_pid, "children": [child.pid for child in children]}), flush=True
    )
    await asyncio.Event().wait()


asyncio.run(main())
