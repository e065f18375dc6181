"""Keeping addresses, candidates and packets out of the log.

aioice logs every candidate at INFO, aiortc every description and packet at DEBUG and every undecodable
packet at WARNING. An operator who wants them sets the level of these loggers and is left alone.
"""

from __future__ import annotations

import logging

_LEVELS = {
    "aioice": logging.WARNING,
    "aiortc": logging.WARNING,
    "aiortc.rtcrtpreceiver": logging.ERROR,  # counted by us instead: a hostile client can cause 50 a second
}


def quiet_rtc_logs() -> None:
    """Raise the level of the libraries' loggers where nobody has set one."""
    for name, level in _LEVELS.items():
        logger = logging.getLogger(name)
        if logger.level == logging.NOTSET:
            logger.setLevel(level)
