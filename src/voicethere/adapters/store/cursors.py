"""Opaque cursors of the error pages: where a page ended.

A cursor holds no secret and grants nothing: a page is always read within the project that was asked for.
"""

from __future__ import annotations

import base64
import binascii

import msgspec

_MAX_CURSOR_CHARACTERS = 512


class _Position(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    order: str
    occurred_at_ms: int
    id: str


_decoder = msgspec.json.Decoder(_Position)


def make(order: str, occurred_at_ms: int, row_id: str) -> str:
    """The cursor behind a row. `order` names the kind of page: its cursors fit no other kind."""
    data = msgspec.json.encode(_Position(order, occurred_at_ms, row_id))
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def read(order: str, cursor: str) -> tuple[int, str]:
    """`(occurred_at_ms, id)` of the row behind which the next page begins.

    Raises:
        ValueError: the cursor was not given out for this kind of page.
    """
    problem = "not a cursor of this list: pass the next_cursor of its previous page, or none"
    if len(cursor) > _MAX_CURSOR_CHARACTERS or not cursor.isascii():
        raise ValueError(problem)
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        position = _decoder.decode(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise ValueError(problem) from error
    if position.order != order or abs(position.occurred_at_ms) > 2**53:
        raise ValueError(problem)
    return position.occurred_at_ms, position.id
