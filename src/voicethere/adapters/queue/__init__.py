"""Adapters of the `session-errors` queue. Embedded: a SQLite file that several processes share.

`SpooledErrorQueue` stands in front of a queue and goes on accepting while that cannot be written.
"""

from voicethere.adapters.queue.embedded import EmbeddedErrorQueue
from voicethere.adapters.queue.spool import SpooledErrorQueue

__all__ = ["EmbeddedErrorQueue", "SpooledErrorQueue"]
