"""Adapters of the `session-errors` queue: a SQLite file that several processes share, or a Redis Stream.

`SpooledErrorQueue` stands in front of a queue and goes on accepting while that cannot be written;
`SampledErrorQueue` in front of both, and lets no project have more than its share.
"""

from typing import TYPE_CHECKING, Any

from voicethere.adapters.queue.embedded import EmbeddedErrorQueue
from voicethere.adapters.queue.sampled import SampledErrorQueue
from voicethere.adapters.queue.spool import SpooledErrorQueue

if TYPE_CHECKING:
    from voicethere.adapters.queue.redis_stream import RedisErrorQueue

__all__ = ["EmbeddedErrorQueue", "RedisErrorQueue", "SampledErrorQueue", "SpooledErrorQueue"]


def __getattr__(name: str) -> Any:
    # The client library is an extra: on one machine nobody needs it.
    if name == "RedisErrorQueue":
        from voicethere.adapters.queue.redis_stream import RedisErrorQueue

        return RedisErrorQueue
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
