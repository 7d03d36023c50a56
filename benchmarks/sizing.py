"""How many engines, how much network and disk, and how much money a large batch takes.

    python -m benchmarks.sizing --images 1e9 --rate R --days 30 [--price P]
    python -m benchmarks.sizing --images 1e9 --rate R --engines 64

R: rows per second of one engine, as the summary of `vllm-csp batch` says after a trial on such a
machine with such photos and questions: nothing here guesses it. P: price of one engine's machine
per hour. What the tool itself takes was measured by `benchmarks.batch_tool`. The last line on
stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from math import ceil

from benchmarks.report import RESULTS
from vllm_csp.serving.batch.on_ray.rounds import ROWS_PER_WORKER

DAY = 86_400
BASE64 = 4 / 3
# What the tool does with each row on Ray, of `benchmarks.batch_tool`.
DRIVER = ("read", "pack for Ray", "journal of Ray's replies")


@dataclass(frozen=True)
class Batch:
    """What is to be done. rate: rows per second and engine; busy: share of the time they work."""

    images: float
    questions: float
    rate: float
    busy: float
    image_bytes: float
    line_bytes: float
    start_seconds: float
    passed_on: float
    recovered: float

    @property
    def rows(self) -> float:
        """In all."""
        return self.images * self.questions

    def engines(self, days: float) -> int:
        """Enough to be done in so many days."""
        return ceil(self.rows / (self.rate * self.busy * days * DAY))

    def figures(self, engines: int, price: float | None) -> dict[str, float | None]:
        """What follows from the number of engines."""
        rows_per_second = engines * self.rate * self.busy
        days = self.rows / rows_per_second / DAY
        image_rate = rows_per_second / self.questions * self.image_bytes
        hours = engines * days * 24
        return {
            "rows": self.rows,
            "engines": engines,
            "days": days,
            "engine hours": hours,
            "cost": None if price is None else hours * price,
            "rows per second": rows_per_second,
            "photos, TB": self.images * self.image_bytes / 1e12,
            "photos from storage, MB/s": image_rate / 1e6,
            "photos per engine, MB/s": image_rate / engines / 1e6,
            "requests within each machine, MB/s": self.rate * self.image_bytes * BASE64 / 1e6,
            "lines to the driver, MB/s": rows_per_second * self.line_bytes / 1e6,
            "journal, TB": self.rows * self.line_bytes / 1e12,
            "jobs, so that one core keeps up with each": ceil(rows_per_second / self.passed_on),
            "core hours to recover the journals": self.rows / self.recovered / 3600,
            "time lost to engine starts, %": (
                100 * self.start_seconds / (self.start_seconds + ROWS_PER_WORKER / self.rate)
            ),
        }


def main() -> None:
    """Compute and print."""
    arguments = _arguments()
    tool = _measured()
    batch = Batch(
        images=arguments.images,
        questions=arguments.questions,
        rate=arguments.rate,
        busy=arguments.busy,
        image_bytes=arguments.image_bytes,
        line_bytes=arguments.line_bytes or tool["journal of Ray's replies"]["bytes_per_row"],
        start_seconds=arguments.start_seconds,
        passed_on=1 / sum(1 / tool[step]["rows_per_cpu_second"] for step in DRIVER),
        recovered=tool["recover on --resume"]["rows_per_cpu_second"],
    )
    engines = arguments.engines or batch.engines(arguments.days)
    figures = batch.figures(engines, arguments.price)
    for name, value in figures.items():
        if value is not None:
            print(f"{name:50} {value:>18,.6g}", file=sys.stderr)
    print(json.dumps({"setting": vars(arguments), "figures": figures}))


def _measured() -> dict[str, dict[str, float]]:
    with (RESULTS / "batch_tool.csv").open() as file:
        return {
            row.pop("step"): {name: float(value) for name, value in row.items()}
            for row in csv.DictReader(file)
        }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=float, required=True)
    parser.add_argument("--questions", type=float, default=1, help="About each image.")
    parser.add_argument("--rate", type=float, required=True, help="Rows per second and engine.")
    parser.add_argument("--busy", type=float, default=0.9, help="Share of the time engines work.")
    parser.add_argument("--image-bytes", type=float, default=200_000, help="Of a file, on average.")
    parser.add_argument("--line-bytes", type=float, help="Of the output; default: measured.")
    parser.add_argument("--start-seconds", type=float, default=120, help="Of an engine.")
    parser.add_argument("--price", type=float, help="Of one engine's machine, per hour.")
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--days", type=float)
    amount.add_argument("--engines", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
