"""Explaining unexplained kills by the kernel's counter."""

from __future__ import annotations

from pathlib import Path

import pytest

from voicethere.adapters.sandbox import oom


def test_each_kill_explains_one_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("low 0\noom 5\noom_kill 2\n")
    monkeypatch.setattr(oom, "_counter_files", lambda: [tmp_path / "missing", counter])
    kills = oom.OutOfMemoryKills()
    assert not kills.explains_a_kill()
    counter.write_text("low 0\noom 9\noom_kill 4\n")
    assert kills.explains_a_kill()
    assert kills.explains_a_kill()
    assert not kills.explains_a_kill()
    counter.unlink()
    assert not kills.explains_a_kill()


def test_this_machine_has_a_counter() -> None:
    assert any(file.exists() for file in oom._counter_files())
    assert not oom.OutOfMemoryKills().explains_a_kill()
