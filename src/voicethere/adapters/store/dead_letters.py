"""Items of the queue that could not be stored as what they are: functions on a connection.

How they come here is in `batch`.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Connection, Row, delete, func, select, update

from voicethere.adapters.store import columns
from voicethere.adapters.store.records import DeadLetter
from voicethere.adapters.store.tables import dead_letters


def newest_dead_letters(connection: Connection, *, limit: int, before: int | None) -> list[DeadLetter]:
    """Newest first; with `before`, those with smaller numbers only."""
    query = select(dead_letters).order_by(dead_letters.c.number.desc()).limit(limit)
    if before is not None:
        query = query.where(dead_letters.c.number < before)
    return [_letter(row) for row in connection.execute(query)]


def get_dead_letter(connection: Connection, number: int) -> DeadLetter | None:
    """The one with this number."""
    row = connection.execute(select(dead_letters).where(dead_letters.c.number == number)).first()
    return None if row is None else _letter(row)


def delete_dead_letter(connection: Connection, number: int, *, only_set_aside: bool = False) -> bool:
    """Whether it was there. `only_set_aside`: not another one that was given its number meanwhile (SQLite
    gives the highest one again once it is free)."""
    gone = delete(dead_letters).where(dead_letters.c.number == number)
    if only_set_aside:
        gone = gone.where(dead_letters.c.checksum_sha256 == _name_aside(number))
    return connection.execute(gone).rowcount > 0


def set_aside(connection: Connection, number: int) -> bool:
    """From now on the same bytes may be buried anew, beside this letter, which stays; whether it is there.

    An item that is buried twice is one letter. Whoever puts it on the queue again and then deletes the letter
    would otherwise delete the only trace of an item that failed again in between.
    """
    changed = update(dead_letters).where(dead_letters.c.number == number)
    return connection.execute(changed.values(checksum_sha256=_name_aside(number))).rowcount > 0


def count_dead_letters(connection: Connection) -> int:
    """How many there are."""
    return connection.execute(select(func.count()).select_from(dead_letters)).scalar_one()


def _name_aside(number: int) -> str:
    """In place of the checksum: no item has this one."""
    return hashlib.sha256(f"dead letter {number}, set aside".encode()).hexdigest()


def _letter(row: Row[tuple[object, ...]]) -> DeadLetter:
    return DeadLetter(
        number=row.number,
        checksum_sha256=row.checksum_sha256,
        data=row.data,
        size_bytes=row.size_bytes,
        problem=row.problem,
        created_at=columns.to_wire(row.created_at_ms),
        truncated=len(row.data) < row.size_bytes,
    )
