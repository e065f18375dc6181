"""Breaking a client's connections from inside, as networks do.

Knows the client's insides: nothing public breaks anything.
"""

from __future__ import annotations

import asyncio

from voicethere.client import Session, SessionState
from voicethere.testing.scripted_server import cut_wires


def drop_socket(session: Session) -> None:
    """The TCP connection of the signaling socket breaks."""
    socket = session._link._socket
    if socket is not None:
        socket._socket.transport.abort()


async def break_peer(session: Session) -> None:
    """Nothing passes between client and runner any more; returns when the client has noticed.

    What is said before that is lost, as it is on any connection.
    """
    leg = session._link.leg
    assert leg is not None
    cut_wires(leg.peer)
    transport = leg.peer._dtls_transport()
    assert transport is not None
    await transport.transport._connection.close()
    while session.state is SessionState.CONNECTED:  # noqa: ASYNC110 - a turn of the loop or two
        await asyncio.sleep(0)


def vanish(session: Session) -> None:
    """As a client whose machine lost its power: nobody is told."""
    drop_socket(session)
    leg = session._link.leg
    if leg is not None:
        cut_wires(leg.peer)
