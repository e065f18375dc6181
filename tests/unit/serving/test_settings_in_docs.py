"""The operators' page names every setting and every metric that there is, and none that is not."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from voicethere.cli import ops_metrics
from voicethere.cli.configuration.masking import shown
from voicethere.cli.configuration.settings import Described, described

PAGE = Path(__file__).parents[3] / "docs" / "running-apart.md"


def row_of(setting: Described) -> str:
    """The setting's row as the page must have it."""
    default = shown(setting.key, setting.default)
    words = (
        ""
        if default in (None, [], {})
        else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    )
    roles = ", ".join(role for role in setting.setting.roles)
    about = setting.setting.words.replace("|", "\\|")
    return f"| `{setting.key}` | {roles} | {words} | {about} |"


def test_every_setting_is_on_the_page_as_it_is() -> None:
    table = PAGE.read_text().partition("| setting | roles |")[2].partition("\n\n")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == [row_of(setting) for setting in described().values()]


def test_every_metric_is_on_the_page() -> None:
    source = inspect.getsource(ops_metrics)
    made = set(re.findall(r'metrics\.(?:gauge|total|counter|histogram)\(\s*"(\w+)"', source))
    made |= set(re.findall(r'\(\s*"(runner_\w+)",', source))
    named = set(re.findall(r"`voicethere_(\w+?)(?:_total)?`", PAGE.read_text()))
    assert made <= named, sorted(made - named)
    assert named <= made, sorted(named - made)
