"""What says that a database cannot be used now, rather than that a statement or its values were wrong.

The difference matters: what cannot be used now is tried again, what is wrong is buried as a dead letter.
"""

from __future__ import annotations

from sqlalchemy import exc

from voicethere.adapters.store.records import StoreUnavailable

# By the first two characters of PostgreSQL's SQLSTATE: connections (08), transactions that may not write or
# were ended (25), logins (28), no such database or schema (3D, 3F), deadlocks (40), resources (53), locks
# (55), operators (57), input and output (58), configuration (F0), the server's own defects (XX).
_CLASSES = frozenset({"08", "25", "28", "3D", "3F", "40", "53", "55", "57", "58", "F0", "XX"})
# No rights, no such table, no such column: the schema is not the one of this version.
_STATES = frozenset({"42501", "42P01", "42703"})
# An administrator ended the connection, or the server is going down or was just started.
_ENDED = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03"})
_TRANSIENT = frozenset({"40001", "40P01"})


def is_unavailable(error: Exception) -> bool:
    """Whether the database cannot be used now."""
    if isinstance(error, StoreUnavailable | exc.TimeoutError):
        return True
    cause = _of_the_driver(error)
    state = _sqlstate(cause)
    if state is not None:
        return state[:2] in _CLASSES or state in _STATES
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    driver = type(cause).__module__.partition(".")[0]
    names = {kind.__name__ for kind in type(cause).__mro__}
    if driver == "sqlite3":
        # A plain DatabaseError: the file is none.
        return "OperationalError" in names or type(cause).__name__ == "DatabaseError"
    # Without a state no server has spoken: there is no connection, or none any more.
    return driver == "psycopg" and bool(names & {"OperationalError", "InterfaceError"})


def is_transient(error: Exception) -> bool:
    """Whether the transaction was undone only because it crossed another one: it may simply be run again."""
    return _sqlstate(error) in _TRANSIENT


def is_lost(error: Exception) -> bool:
    """Whether the connection was gone, as all pooled ones are after a restart of the server."""
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return True
    state = _sqlstate(error)
    return is_unavailable(error) and (state is None or state[:2] == "08" or state in _ENDED)


def unavailable(error: Exception) -> StoreUnavailable:
    """The error to raise instead; it names the driver's reason, without the statement and its values."""
    if isinstance(error, StoreUnavailable):
        return error
    return StoreUnavailable(f"the database cannot be used now: {_of_the_driver(error)}")


def _of_the_driver(error: BaseException) -> BaseException:
    """What the driver said: SQLAlchemy wraps it, unless a statement went past SQLAlchemy."""
    if isinstance(error, exc.DBAPIError) and error.orig is not None:
        return error.orig
    return error


def _sqlstate(error: BaseException) -> str | None:
    state = getattr(_of_the_driver(error), "sqlstate", None)
    return state if isinstance(state, str) else None
