"""Wording of mistakes: what was meant, perhaps."""

from __future__ import annotations

import re
from collections.abc import Iterable


def snake_case(name: str) -> str:
    """`onUserSpeechFinal` as `on_user_speech_final`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).replace("-", "_").lower()


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or nothing where no known name is close."""
    import difflib  # only a mistake needs it

    close = difflib.get_close_matches(snake_case(wrong[:100]), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
