"""What one process of `vllm-csp batch` can pass through, without any engine: rows, lines, bytes.

    python -m benchmarks.batch_tool [--rows 20000]

Lines carry the masks of synthetic scenes (`vllm_csp.scenes`). Seconds are of CPU time, without
waiting for the disk; each figure is the median over repeats. The last line on stdout is one JSON
document; rows go to benchmarks/results/batch_tool.csv.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from benchmarks.report import report_rows
from vllm_csp.masks import encode_mask
from vllm_csp.scenes import make_sample
from vllm_csp.serving.batch.backlog import Backlog
from vllm_csp.serving.batch.disk_index import DiskIndex
from vllm_csp.serving.batch.journal import Journal
from vllm_csp.serving.batch.on_ray.pack import (
    Reply,
    block_reply,
    block_rows,
    packs_of,
    reply_block,
    rows_block,
)
from vllm_csp.serving.batch.outcome import Outcome
from vllm_csp.serving.batch.recovery import recover
from vllm_csp.serving.batch.row import Row
from vllm_csp.serving.batch.sources.choice import InputKind, open_source
from vllm_csp.serving.batch.sources.source import Asking
from vllm_csp.serving.batch.tally import Tally
from vllm_csp.serving.batch.window import grouped

PACK = 16


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    bodies = _bodies(arguments.scenes, arguments.size)
    runs = []
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(_run(Path(folder), arguments.rows, bodies))
    rows = [
        {
            "step": step,
            "rows_per_cpu_second": round(statistics.median(run[step][0] for run in runs)),
            "bytes_per_row": round(statistics.median(run[step][1] for run in runs)),
        }
        for step in runs[0]
    ]
    setting = {name: getattr(arguments, name) for name in ("rows", "repeats", "scenes", "size")}
    report_rows("batch_tool", "vllm-csp batch, one process, no engine", rows, setting)


def _run(folder: Path, count: int, bodies: list[dict[str, Any]]) -> dict[str, tuple[float, float]]:
    source = folder / "in.jsonl"
    with source.open("w") as file:
        for number in range(count):
            file.write(json.dumps(_short(number)) + "\n")
    figures = {}
    rows, seconds = _timed(lambda: list(_read(source)))
    figures["read"] = count / seconds, source.stat().st_size / count
    blocks, seconds = _timed(lambda: [rows_block(pack) for pack in packs_of(iter(rows), PACK)])
    figures["pack for Ray"] = count / seconds, sum(one.nbytes for one in blocks) / count
    answers = cycle(bodies)
    replies = [
        reply_block(Reply([Outcome(row, 200, next(answers)).line() for row in block_rows(block)]))
        for block in blocks
    ]
    journal = folder / "out.jsonl"
    _, seconds = _timed(lambda: _record(replies, journal))
    figures["journal of Ray's replies"] = count / seconds, journal.stat().st_size / count
    _, seconds = _timed(lambda: recover(journal, DiskIndex()))
    figures["recover on --resume"] = count / seconds, journal.stat().st_size / count
    return figures


def _read(source: Path) -> Iterator[Row]:
    asking = Asking("force", None)
    opened = open_source(str(source), InputKind.AUTO, asking, questions=[], images=None)
    for item in grouped(Backlog(DiskIndex()).rows(opened.rows()), 1024):
        assert isinstance(item, list)
        yield from item


def _record(replies: list[Any], path: Path) -> None:
    written, tally = DiskIndex(), Tally()
    with Journal(path) as journal:
        for reply in replies:
            for line in block_reply(reply).lines:
                if written.add(line["custom_id"], line["input"]["place"]) is None:
                    journal.append(line)
                    tally.count(line)


def _short(number: int) -> dict[str, Any]:
    """A row of an input of many photos in folders."""
    return {
        "custom_id": f"photo-{number:09}-0",
        "image": f"{number % 1000:03}/{number:09}.jpg",
        "question": "Can you segment the person on the left in this image?",
        "mode": "force",
    }


def _bodies(scenes: int, size: int) -> list[dict[str, Any]]:
    """Answers with one mask each, as servers give them."""
    samples = (make_sample(seed, "test", size=size) for seed in range(scenes))
    masks = [mask for sample in samples for question in sample.questions for mask in question.masks]
    return [
        {
            "id": "chatcmpl-0123456789abcdef0123456789abcdef",
            "object": "chat.completion",
            "created": 1_795_000_000,
            "model": "lisa",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "[SEG].",
                        "masks": [encode_mask(mask, 0.9123, 0, "rle")],
                    },
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 320, "total_tokens": 321, "completion_tokens": 1},
        }
        for mask in islice(masks, 2000)
    ]


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    began = time.process_time()
    done = work()
    return done, time.process_time() - began


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--scenes", type=int, default=50, help="Whose masks the lines carry.")
    parser.add_argument("--size", type=int, default=640, help="Pixels of their sides.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
