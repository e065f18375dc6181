"""What every child may read."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import pytest

from voicethere.adapters.sandbox.readable import interpreter_paths, is_beneath


def test_it_takes_in_the_interpreter_and_leaves_out_what_is_private(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = interpreter_paths()
    for needed in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), Path(os.__file__).parent):
        assert any(is_beneath(os.path.realpath(needed), path) for path in paths)
    for private in ("/", "/proc", "/etc/passwd", "/root", "/home", "/tmp", "/var", "/dev/shm"):
        assert not any(is_beneath(private, path) for path in paths)


def test_relative_and_missing_entries_are_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        sys, "path", [*sys.path, "", ".", "relative", str(tmp_path / "missing"), str(tmp_path)]
    )
    paths = interpreter_paths()
    assert str(tmp_path.resolve()) in paths
    assert str(tmp_path / "missing") not in paths
    assert all(os.path.isabs(path) and os.path.exists(path) for path in paths)


@pytest.mark.parametrize(
    ("path", "folder", "beneath"),
    [
        ("/a/b", "/a", True),
        ("/a", "/a", True),
        ("/ab", "/a", False),
        ("/a", "/a/b", False),
        ("/a", "/", True),
    ],
)
def test_beneath(path: str, folder: str, *, beneath: bool) -> None:
    assert is_beneath(path, folder) is beneath
