"""In the place of an engine in a Ray actor: answers at once, and does what rows ask for."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from vllm_csp.serving.batch.on_ray.pack import Reply, block_rows, reply_block
from vllm_csp.serving.batch.on_ray.worker import Engine
from vllm_csp.serving.batch.outcome import Outcome
from vllm_csp.serving.batch.row import Row

if TYPE_CHECKING:
    import pyarrow as pa


class MadeUpWorker:
    """Its `checkpoint` is a folder for what happens once: in it each start leaves a file."""

    def __init__(self, engine: Engine) -> None:
        self._folder = Path(engine.checkpoint)
        (self._folder / f"worker-{os.getpid()}").touch()

    def __call__(self, block: pa.Table) -> pa.Table:
        rows = block_rows(block)
        lines = [self._line(row) for row in rows]
        time.sleep(8 if any("slow" in str(row.body) for row in rows) else 0.02)
        if any("twice" in str(row.body) for row in rows):
            lines += lines
        if any("lost" in str(row.body) for row in rows):
            lines = []
        return reply_block(Reply(lines, images_read=1))

    def _line(self, row: Row) -> dict[str, object]:
        if "deadly" in str(row.body):
            died = self._folder / f"died-{row.custom_id}"
            if not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        message = {"content": row.custom_id, "masks": [{"size": [1, 1]}]}
        return Outcome(row, 200, {"id": "a", "choices": [{"message": message}]}).line()
