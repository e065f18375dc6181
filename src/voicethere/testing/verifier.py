"""A bundle verifier that starts no process: what a test says of a bundle is what it reports."""

from __future__ import annotations

from voicethere.core.ports import BundleReport, SandboxUnavailable


class FakeBundleVerifier:
    """Reports a bundle as fine unless a marker that was given for it is in its bytes.

    Example:
        >>> verifier = FakeBundleVerifier(problems={b"import nowhere": "ModuleNotFoundError: nowhere"})
    """

    def __init__(self, problems: dict[bytes, str] | None = None) -> None:
        self.problems = dict(problems or {})
        self.seen: list[bytes] = []
        self.unavailable = False

    async def verify(self, data: bytes) -> BundleReport:
        """Raises SandboxUnavailable while `unavailable` is set."""
        if self.unavailable:
            raise SandboxUnavailable("the fake sandbox is switched off")
        self.seen.append(data)
        for marker, problem in self.problems.items():
            if marker in data:
                return BundleReport(problem=problem, stack=f'  File "agent.py", line 1\n{problem}')
        return BundleReport(hooks=("on_session_start",), commands=("hello",))
