"""One producer: puts synthetic errors at a fixed rate, as a runner does, and keeps a journal of each.

`python -m tools.torture.producer`. The journal says `minted` before the first attempt, `accepted` once the
put has returned. Its queue is a runner's: a spool in front of Redis (without sampling: nothing here may be
left out). Asked to end, it mints no more, and ends once everything is accepted and its spool is empty.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import tenacity

from tools.torture.deployment import Deployment, Target
from tools.torture.journal import Journal
from tools.torture.synthetic import words_of
from voicethere.adapters.queue import SpooledErrorQueue
from voicethere.adapters.queue.redis_stream import RedisErrorQueue
from voicethere.cli.logs import configure_logs
from voicethere.core.ports import ErrorQueuePort, QueueUnavailable
from voicethere.errors import ErrorRecord, SessionErrorCode, make_record
from voicethere.errors.ids import error_id
from voicethere.errors.times import iso_from_epoch
from voicethere.wire.queue import ErrorItem

RESERVE_BYTES = 64 * 1024
"""Less than a runner's: a full disk is to be felt within seconds."""
MAX_UNDER_WAY = 1000
_TICK_SECONDS = 0.05
_LONGEST_STACK = 6000
_CODES = (
    SessionErrorCode.AGENT_HANDLER_FAILED,
    SessionErrorCode.AGENT_CHILD_CRASHED,
    SessionErrorCode.RUNNER_INTERNAL,
)


class Producer:
    """Mints and puts until `stop`."""

    def __init__(
        self, queue: ErrorQueuePort, journal: Journal, targets: Sequence[Target], *, rate: float
    ) -> None:
        """`rate` is errors a second."""
        self._queue = queue
        self._journal = journal
        self._targets = targets
        self._rate = rate
        self._chance = random.Random()  # noqa: S311 - which session an error is of
        self._templates = [_template(code) for code in _CODES]
        self._under_way: set[asyncio.Task[None]] = set()
        self._stopping = asyncio.Event()
        self._minted = 0

    def stop(self) -> None:
        """Mint no more."""
        self._stopping.set()

    async def run(self) -> None:
        """Return once all that was minted is accepted."""
        last, owed = time.monotonic(), 0.0
        while not self._stopping.is_set():
            now = time.monotonic()
            # After a pause of this process the rate goes on; what was missed is not made up for at once.
            owed += min(now - last, 1.0) * self._rate
            last = now
            while owed >= 1.0:
                owed -= 1.0
                if len(self._under_way) < MAX_UNDER_WAY:
                    task = asyncio.create_task(self._put(self._mint()))
                    self._under_way.add(task)
                    task.add_done_callback(self._under_way.discard)
            await asyncio.sleep(_TICK_SECONDS)
        while self._under_way:
            await asyncio.wait(self._under_way)

    def _mint(self) -> ErrorRecord:
        target = self._chance.choice(self._targets)
        now = time.time()
        self._minted += 1
        identity = error_id(now, self._minted)
        record = msgspec.structs.replace(
            self._chance.choice(self._templates),
            id=identity,
            session_id=target.session_id,
            project_id=target.project_id,
            build_id=target.build_id,
            message=words_of(identity, target.project_id),
            stack="synthetic\n" * self._chance.randrange(_LONGEST_STACK // 10),
            recoverable=self._chance.random() < 0.5,
            occurred_at=iso_from_epoch(now),
        )
        self._journal.write("minted", id=identity, project=target.project_id, session=target.session_id)
        return record

    async def _put(self, record: ErrorRecord) -> None:
        async for attempt in tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(QueueUnavailable),
            wait=tenacity.wait_exponential(multiplier=0.05, max=1.0),
        ):
            with attempt:
                await self._queue.put([ErrorItem(record=record)])
        self._journal.write("accepted", id=record.id)


def _template(code: SessionErrorCode) -> ErrorRecord:
    return make_record(
        "synthetic",
        code=code,
        error_id="template",
        session_id="template",
        project_id="template",
        build_id=None,
        occurred_at=time.time(),
        customer_context={"synthetic": True},
    )


async def produce(arguments: argparse.Namespace) -> None:
    """Until SIGTERM, or until whoever started us has gone."""
    deployment = msgspec.json.decode(arguments.deployment.read_bytes(), type=Deployment)
    journal = Journal(arguments.journal)
    engine = RedisErrorQueue(arguments.redis)
    queue = SpooledErrorQueue(engine, arguments.spool, reserve_bytes=RESERVE_BYTES)
    await queue.open()
    producer = Producer(queue, journal, deployment.targets, rate=arguments.rate)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, producer.stop)
    sys.stdout.write('{"serves": "producer"}\n')
    sys.stdout.flush()
    await producer.run()
    while queue.spooled:  # noqa: ASYNC110 - a queue tells nobody that it is empty
        await asyncio.sleep(0.05)
    await queue.aclose()
    journal.write("done")


def main() -> None:
    """Run one producer."""
    parser = argparse.ArgumentParser(description="Puts synthetic errors into the queue, at a fixed rate.")
    parser.add_argument("--redis", required=True)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--deployment", type=Path, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True)
    arguments = parser.parse_args()
    configure_logs(level="INFO", file=arguments.log, role="producer")
    asyncio.run(produce(arguments))


if __name__ == "__main__":
    main()
