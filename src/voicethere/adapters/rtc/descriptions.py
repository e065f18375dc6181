"""Reading session descriptions that a stranger sent, before aiortc does.

Candidates are taken out, to be screened like trickled ones, and so is the mark that no more will come:
aioice would give up at once when the only candidates were mDNS names, although the peer's own checks reach
us a moment later. Our connect timeout ends an attempt that leads nowhere.
"""

from __future__ import annotations

import msgspec

MAX_SDP_CHARS = 64 * 1024


class BadDescription(ValueError):
    """The description cannot be used; the words say why."""


class PreparedDescription(msgspec.Struct, frozen=True):
    """`sdp` without candidates, and the candidates' lines (each once, in order)."""

    sdp: str
    candidate_lines: list[str]


def prepare(sdp: str) -> PreparedDescription:
    """Split a remote description into what aiortc may read and its candidates.

    Raises:
        BadDescription: too long, or not SDP at all.
    """
    if len(sdp) > MAX_SDP_CHARS:
        raise BadDescription(f"a description of {len(sdp)} characters; {MAX_SDP_CHARS} are allowed")
    lines = sdp.splitlines()
    if not lines or not lines[0].startswith("v=0"):
        raise BadDescription("not SDP: it does not begin with v=0")
    kept = [line for line in lines if not line.startswith(("a=candidate:", "a=end-of-candidates"))]
    candidates = dict.fromkeys(line for line in lines if line.startswith("a=candidate:"))
    return PreparedDescription("\r\n".join(kept) + "\r\n", list(candidates))
