"""Children that are real processes, and a database to look into."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

CHILDREN = Path(__file__).parent / "children"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a child by the name of its module; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start_child(name: str, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(CHILDREN / f"{name}.py"), *map(str, arguments)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        started.append(child)
        return child

    yield start_child
    for child in started:
        with suppress(ProcessLookupError):
            child.kill()
        child.communicate(timeout=30)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/voicethere.db"
