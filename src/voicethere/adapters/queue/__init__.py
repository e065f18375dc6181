"""Adapters of the `session-errors` queue. Embedded: a SQLite file that several processes share."""

from voicethere.adapters.queue.embedded import EmbeddedErrorQueue

__all__ = ["EmbeddedErrorQueue"]
