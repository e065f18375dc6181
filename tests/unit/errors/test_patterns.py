"""Redaction must work on every Python that we support, and some of those match possessive groups wrongly."""

from __future__ import annotations

import re
from pathlib import Path

import voicethere.errors

POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[0-9,{}]+\})\+[\"'|)]")


def test_no_pattern_has_a_possessive_group() -> None:
    assert POSSESSIVE_GROUP.search('r"(?:ab|c)*+"')
    assert POSSESSIVE_GROUP.search('r"(?:[ ]?[0-9]){12,}+"')
    sources = Path(voicethere.errors.__file__).parent.glob("*.py")
    found = [
        (path.name, hit.group()) for path in sources for hit in POSSESSIVE_GROUP.finditer(path.read_text())
    ]
    assert found == []
