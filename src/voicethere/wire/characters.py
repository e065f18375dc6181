"""JSON with halves of characters in it: lone surrogates, escaped.

To JavaScript half a character is a character, so that a stream which is cut anywhere sends some; the decoder
takes such a text for no JSON at all. Knows escapes only, not what the text is about.
"""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    r"""\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}  # both halves
    | (?P<half> \\u[dD][89a-fA-F][0-9a-fA-F]{2} )
    | \\.  # any other escape: behind an escaped backslash there is none""",
    re.VERBOSE | re.DOTALL,
)


def with_whole_characters(json: str | bytes) -> str | bytes:
    """The text with U+FFFD for each half of a character; itself where there is none."""
    if isinstance(json, bytes):
        try:
            text = json.decode()
        except UnicodeDecodeError:
            return json
    else:
        text = json
    if "\\ud" not in text and "\\uD" not in text:
        return json
    mended = _ESCAPES.sub(lambda escape: "\\ufffd" if escape["half"] else escape[0], text)
    return json if mended == text else mended
