"""The script of an installation that is the agent SDK alone."""

from __future__ import annotations

import builtins
import sys
from typing import Any

import pytest

from voicethere.cli import entry


def test_what_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without_click(name: str, *rest: Any, **options: Any) -> Any:
        if name == "click":
            raise ModuleNotFoundError("No module named 'click'", name="click")
        return real(name, *rest, **options)

    monkeypatch.delitem(sys.modules, "voicethere.cli.main", raising=False)
    monkeypatch.setattr(builtins, "__import__", without_click)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "'click'" in said
    assert "voicethere[server,client,speech]" in said
    assert "Traceback" not in said
