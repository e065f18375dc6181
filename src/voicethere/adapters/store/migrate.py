"""Brings a database to the newest schema, safely even where two processes open it at once.

Knows Alembic and the lock; the steps themselves are in `migrations/versions`.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection

_MIGRATIONS = Path(__file__).parent / "migrations"


class UnknownSchema(Exception):
    """The database is at a step that this version does not have."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the right to create and migrate the database at `path`, among all processes of this machine.

    The database's own lock is not enough: the first to come also chooses its page size and journal.
    """
    descriptor = os.open(f"{path}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def upgrade(connection: Connection) -> None:
    """Run the missing steps in the transaction that `connection` is in; none where all were run.

    Raises:
        UnknownSchema: a newer version was here before.
    """
    config = Config()
    # `os`: Alembic warns where it has to guess how paths are separated.
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise UnknownSchema(f"a newer version made this schema, use that one ({error})") from error
