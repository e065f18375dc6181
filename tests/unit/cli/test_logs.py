"""Where logs go, and that a role that runs for months does not fill its disk with them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from voicethere.cli import logs


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    """As they were before."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    try:
        yield
    finally:
        for handler in root.handlers:
            if handler not in handlers:
                handler.close()
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


def test_lines_are_json_and_say_who_wrote_them(tmp_path: Path) -> None:
    logs.configure_logs(level="INFO", file=tmp_path / "log", role="worker", instance="w-1")
    structlog.get_logger("x").info("stored", count=3)
    logging.getLogger("library").warning("also %s", "this")
    ours, theirs = (json.loads(line) for line in (tmp_path / "log").read_text().splitlines())
    assert (ours["event"], ours["count"], ours["role"], ours["instance"]) == ("stored", 3, "worker", "w-1")
    assert (theirs["event"], theirs["level"], theirs["role"]) == ("also this", "warning", "worker")


def test_a_log_that_has_grown_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 2_000)
    logs.configure_logs(level="INFO", file=tmp_path / "log")
    for number in range(200):
        structlog.get_logger("x").info("something", number=number)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["log", "log.1", "log.2", "log.3"]
    assert all(path.stat().st_size <= 2_000 for path in tmp_path.iterdir())
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1])["number"] == 199


def test_a_log_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        logs.configure_logs(level="INFO", file=tmp_path / "missing" / "log")
