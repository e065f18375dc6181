"""The child's `os.environ`, which is one for the whole process.

A session's variables are put there as long as it is the only session of the child, which is the rule; where
sessions share a child, each has its own in `ctx.env`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping


class SessionVariables:
    """Shows one session's variables in `os.environ`."""

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._note = note
        self._shown: set[str] = set()

    def show(self, variables: Mapping[str, str]) -> None:
        """Replace the variables of the session before by these."""
        for name in self._shown - variables.keys():
            os.environ.pop(name, None)
        self._shown = set()
        for name, value in variables.items():
            try:
                os.environ[name] = value
            except ValueError as error:
                self._note("warn", f"the variable {name!r} cannot be in os.environ ({error}); see ctx.env")
            else:
                self._shown.add(name)
