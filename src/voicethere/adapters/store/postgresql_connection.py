"""A connection to PostgreSQL that does not wait for ever.

A server that was paused, or a host that is gone, answers nothing and closes nothing: no setting of the
server helps then, and neither do those of TCP. So every wait for an answer ends after a while, and the
connection with it.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen

Result = TypeVar("Result")


class NoAnswer(psycopg.OperationalError):
    """The server took too long; the connection was closed."""


class ImpatientConnection(psycopg.Connection[tuple[Any, ...]]):
    """Closes itself when one answer takes longer than `patience_seconds`; None waits for ever."""

    patience_seconds: float | None = None

    def wait(self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None) -> Result:
        """As the driver's, for so long at most."""
        patience = self.patience_seconds if timeout is None else timeout
        if patience is None:
            return super().wait(gen, interval=interval)
        return super().wait(self._until(gen, patience), interval=interval)

    def _until(self, gen: PQGen[Result], patience: float) -> Generator[Any, Any, Result]:
        # The driver comes back at each interval, whether or not there was an answer.
        deadline = time.monotonic() + patience
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if not ready and time.monotonic() > deadline:
                    self.close()
                    raise NoAnswer(f"the server has not answered for {patience:g} seconds")
                wanted = gen.send(ready)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def connect(
    parameters: Mapping[str, Any], settings: Mapping[str, str], patience_seconds: float
) -> ImpatientConnection:
    """A new connection with these settings of its session.

    Raises:
        psycopg.OperationalError: the server is not there, not ready, or does not want us.
    """
    connection = ImpatientConnection.connect(**parameters)
    connection.patience_seconds = patience_seconds
    try:
        query = "SELECT " + ", ".join(["set_config(%s, %s, false)"] * len(settings))
        connection.execute(query, [part for setting in settings.items() for part in setting])
        connection.commit()
    except BaseException:
        connection.close()
        raise
    return connection
