"""Starting, confining and supervising child processes on one Linux machine.

The parts, from the runner's side to the child's: `zygote_sandbox` (the port), `confined_child`, `output`,
`scratch`, `zygote_process` | `protocol` | `zygote`, `child`, `confinement` and the walls it puts up
(`landlock`, `seccomp`, `privileges`, `limits`). The package knows nothing of agents. Its names are imported
on demand, because the zygote imports this package too and must stay small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from voicethere.adapters.sandbox.child import OUT_OF_MEMORY_STATUS
    from voicethere.adapters.sandbox.zygote_sandbox import ZygoteSandbox

__all__ = ["OUT_OF_MEMORY_STATUS", "ZygoteSandbox"]


def __getattr__(name: str) -> Any:
    if name == "ZygoteSandbox":
        from voicethere.adapters.sandbox.zygote_sandbox import ZygoteSandbox

        return ZygoteSandbox
    if name == "OUT_OF_MEMORY_STATUS":
        from voicethere.adapters.sandbox.child import OUT_OF_MEMORY_STATUS

        return OUT_OF_MEMORY_STATUS
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
