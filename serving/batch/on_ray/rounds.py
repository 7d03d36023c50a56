"""The run itself on Ray: rounds of rows through a Ray Data job, the lines into the journal.

Ray Data makes sure that every block is answered, by another actor if need be; that may be more than
once. What makes it exactly once is here: one line per id, written by one process, and an error if
one is missing. A round is bounded because Ray Data reads ahead by bytes, and rows are small: all of
an input would be in memory before the first engine has started.
"""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vllm_csp.serving.batch.disk_index import DiskIndex
from vllm_csp.serving.batch.journal import Journal
from vllm_csp.serving.batch.on_ray.cluster import Cluster
from vllm_csp.serving.batch.on_ray.pack import Reply, block_reply, packs_of, rows_block
from vllm_csp.serving.batch.on_ray.worker import Engine, EngineWorker
from vllm_csp.serving.batch.row import Rejected, Row
from vllm_csp.serving.batch.run import Work, record_rejected, ticking
from vllm_csp.serving.batch.stop import Stop
from vllm_csp.serving.batch.tally import Tally

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_PER_WORKER = 50_000
"""Of a round: at 10 rows per second and engine 80 minutes, after which engines start anew."""

BYTES_PER_ROUND = 256 << 20


@dataclass
class Rounds:
    """Asks all rows of some work on a cluster. rows: of each round, 0 for the default.

    worker: the actors' class.
    """

    cluster: Cluster
    engine: Engine
    journal: Journal
    tally: Tally
    stop: Stop
    rows: int = 0
    worker: type = EngineWorker
    counts: Counter[str] = field(default_factory=Counter)

    async def finish(self, work: Work, tick: Callable[[], None]) -> None:
        """Ask everything; `tick` is called once a second.

        After a stop it ends with the next reply; what other calls work on is asked by the next run.
        Raises `RuntimeError` when Ray gives up, and what reading or writing raises.
        """
        limit = self.rows or ROWS_PER_WORKER * self.cluster.num_workers
        rows = self._rows(work)
        async with ticking(self.journal, tick):
            while not self.stop.asked:
                # Reading blocks, and at times for long.
                blocks, count = await asyncio.to_thread(self._next_round, rows, limit)
                if count == 0:
                    return
                await self._ask(blocks, count)

    def _rows(self, work: Work) -> Iterator[Row]:
        for item in work:
            if isinstance(item, Rejected):
                record_rejected(item, self.journal, self.tally)
            else:
                yield from item

    def _next_round(self, rows: Iterator[Row], limit: int) -> tuple[list[pa.Table], int]:
        blocks: list[pa.Table] = []
        count = num_bytes = 0
        for pack in packs_of(rows, min(self.engine.pack_size, limit)):
            blocks.append(rows_block(pack))
            count, num_bytes = count + len(pack), num_bytes + blocks[-1].nbytes
            if count >= limit or num_bytes >= BYTES_PER_ROUND:
                break
        return blocks, count

    async def _ask(self, blocks: list[pa.Table], count: int) -> None:
        written = DiskIndex()
        self.counts["rounds"] += 1
        replies = await asyncio.to_thread(self._start, blocks)
        while (reply := await self._next(replies)) is not None:
            self._record(reply, written)
            if self.stop.asked:
                # Ray cannot be left while a thread waits for it: not before this reply.
                del replies
                return
        if len(written) < count:
            raise RuntimeError(f"Ray lost {count - len(written)} rows: --resume asks them again")
        written.close()

    def _start(self, blocks: list[pa.Table]) -> Iterator[pa.Table]:
        import ray.data

        strategy, need = self.cluster.pool(len(blocks))
        with warnings.catch_warnings():
            # Ray has no other way yet to say how often an actor may be restarted.
            warnings.simplefilter("ignore", DeprecationWarning)
            answers = ray.data.from_arrow(blocks).map_batches(
                self.worker,
                fn_constructor_args=(self.engine,),
                batch_size=None,
                batch_format="pyarrow",
                compute=strategy,
                **need,
            )
        return iter(
            answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        )

    async def _next(self, replies: Iterator[pa.Table]) -> Reply | None:
        block = await asyncio.to_thread(_next_block, replies)
        return None if block is None else await asyncio.to_thread(block_reply, block)

    def _record(self, reply: Reply, written: DiskIndex) -> None:
        self.counts["images_read"] += reply.images_read
        self.counts["retries"] += reply.retries
        self.counts["server_restarts"] += reply.server_restarts
        for line in reply.lines:
            if written.add(line["custom_id"], line["input"]["place"]) is None:
                self.journal.append(line)
                self.tally.count(line)


def _next_block(replies: Iterator[pa.Table]) -> pa.Table | None:
    """The next block, none at the end. Raises `RuntimeError` when Ray gives up."""
    from ray.exceptions import RayError

    try:
        return next(replies, None)
    except RayError as error:
        raise RuntimeError(f"Ray gave up: {error}") from error
