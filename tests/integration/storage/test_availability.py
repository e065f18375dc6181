"""Which words of a database mean "not now", and which mean that a statement or its values were wrong."""

from __future__ import annotations

import sqlite3

import psycopg
import pytest
from psycopg import errors
from sqlalchemy import exc

from voicethere.adapters.store import StoreUnavailable
from voicethere.adapters.store.availability import is_lost, is_transient, is_unavailable, unavailable

NOT_NOW = [
    errors.AdminShutdown,
    errors.CannotConnectNow,
    errors.ConnectionFailure,
    errors.DeadlockDetected,
    errors.DiskFull,
    errors.IdleInTransactionSessionTimeout,
    errors.InFailedSqlTransaction,
    errors.InsufficientPrivilege,
    errors.InvalidCatalogName,
    errors.InvalidPassword,
    errors.IoError,
    errors.LockNotAvailable,
    errors.OutOfMemory,
    errors.QueryCanceled,
    errors.ReadOnlySqlTransaction,
    errors.SerializationFailure,
    errors.TooManyConnections,
    errors.UndefinedTable,
]
WRONG = [
    errors.CharacterNotInRepertoire,
    errors.ForeignKeyViolation,
    errors.NotNullViolation,
    errors.NumericValueOutOfRange,
    errors.ProgramLimitExceeded,
    errors.StringDataRightTruncation,
    errors.SyntaxError,
    errors.UniqueViolation,
]


def wrapped(error: Exception, kind: type[exc.DBAPIError] = exc.OperationalError) -> exc.DBAPIError:
    return kind("SELECT 's3cret'", {"value": "s3cret"}, error)


@pytest.mark.parametrize("kind", NOT_NOW, ids=lambda kind: kind.__name__)
def test_postgresql_that_cannot_be_used_now(kind: type[psycopg.Error]) -> None:
    assert is_unavailable(kind("why"))
    assert is_unavailable(wrapped(kind("why"), exc.InternalError))
    assert str(unavailable(wrapped(kind("why")))) == "the database cannot be used now: why"


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_what_postgresql_would_refuse_again(kind: type[psycopg.Error]) -> None:
    assert not is_unavailable(kind("why"))
    assert not is_unavailable(wrapped(kind("why")))
    assert not is_lost(kind("why"))


@pytest.mark.parametrize(
    ("error", "not_now"),
    [
        (psycopg.OperationalError("connection refused"), True),
        (psycopg.InterfaceError("the connection is closed"), True),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), False),
        (psycopg.ProgrammingError("cannot adapt type"), False),
        (sqlite3.OperationalError("database is locked"), True),
        (sqlite3.DatabaseError("file is not a database"), True),
        (sqlite3.IntegrityError("NOT NULL constraint failed"), False),
        (sqlite3.InterfaceError("Error binding parameter"), False),
        (StoreUnavailable("closed"), True),
        (exc.TimeoutError("no connection left in the pool"), True),
        (OverflowError("int too big"), False),
        (LookupError("there is no project"), False),
    ],
    ids=repr,
)
def test_errors_without_a_state(error: Exception, not_now: bool) -> None:
    assert is_unavailable(error) is not_now


def test_only_crossed_transactions_are_run_again_and_only_lost_connections_are_lost() -> None:
    assert is_transient(wrapped(errors.DeadlockDetected("why")))
    assert is_transient(errors.SerializationFailure("why"))
    assert not is_transient(errors.LockNotAvailable("why"))
    assert is_lost(errors.AdminShutdown("why"))
    assert is_lost(psycopg.OperationalError("server closed the connection unexpectedly"))
    assert not is_lost(errors.QueryCanceled("why"))
    assert not is_lost(errors.DiskFull("why"))
