"""How questions per second grow or fall with clients, questions, image tokens and answers.

    vllm-csp bench growth [--systems dense csp-65] [--axes concurrency per_image image_tokens ...]

One axis at a time, each with a server of its own per system (and per number of image or answer
tokens), asked over HTTP as `vllm-csp bench e2e` does, with the same random model. `over_first`:
questions per second over those of the axis's first value; `tokens_per_second`: prompt and answer
tokens of all questions per second, which fall suddenly where there is a cliff. The last line on
stdout is one JSON document; rows go to benchmarks/results/growth.csv, a picture per axis.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.dtype_options import add_dtype_option
from benchmarks.e2e import TEXT_TOKENS
from benchmarks.e2e import parse as parse_e2e
from benchmarks.plots import plot_lines
from benchmarks.report import RESULTS, report_rows
from benchmarks.served import measure_server
from benchmarks.systems import POLICIES

AXES = {
    "concurrency": (1, 4, 16, 64),
    "per_image": (1, 2, 4, 8),
    "image_tokens": (256, 576, 1024),
    "answer_tokens": (7, 16, 32, 64),
}
ON_ONE_SERVER = ("concurrency", "per_image")
CLIENTS = 4
"""Where the number of clients is not what grows."""
LONGEST = 1280
"""Tokens of a prompt with the largest image, and the answer."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure every axis and report."""
    arguments = parse(argv)
    rows = []
    for axis in arguments.axes:
        for system in arguments.systems:
            found = list(_measured(system, axis, arguments))
            first = found[0]["questions_per_second"]
            rows += [{**row, "over_first": round(_rate(row) / first, 3)} for row in found]
            print(f"{axis} of {system}: {len(found)} cells done", file=sys.stderr, flush=True)
    names = ("dtype", "layers", "hidden", "requests")
    report_rows("growth", "growth", rows, {name: getattr(arguments, name) for name in names})
    for axis in arguments.axes:
        mine = [row for row in rows if row["axis"] == axis]
        file = RESULTS / f"growth-{axis.replace('_', '-')}.png"
        plot_lines(file, mine, "value", "questions_per_second", "system", axis.replace("_", " "))


def _measured(system: str, axis: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    values = AXES[axis]
    runs = [values] if axis in ON_ONE_SERVER else [(value,) for value in values]
    for run in runs:
        asked = {"concurrency": (CLIENTS,), "per_image": (1,), axis: run}
        options = [f"--{name.replace('_', '-')}" for name in asked]
        words = [
            word
            for option, numbers in zip(options, asked.values(), strict=True)
            for word in (option, *map(str, numbers))
        ]
        names = ("dtype", "layers", "hidden", "requests")
        words += [f"--{name}={getattr(arguments, name)}" for name in names]
        cell = parse_e2e([*words, "--max-model-len", str(LONGEST), f"--flags={arguments.flags}"])
        for value, row in zip(run, measure_server(system, cell)["rows"], strict=True):
            tokens = cell.image_tokens + TEXT_TOKENS + cell.answer_tokens
            yield {
                "axis": axis,
                "value": value,
                "system": system,
                "questions_per_second": round(row["rate"], 3),
                "tokens_per_second": round(row["rate"] * tokens),
                "p50_ms": round(row["p50_ms"]),
                "p95_ms": round(row["p95_ms"]),
            }


def _rate(row: dict[str, Any]) -> float:
    return float(row["questions_per_second"])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The options of a run."""
    parser = argparse.ArgumentParser(
        prog="vllm-csp bench growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    systems = list(POLICIES)
    parser.add_argument("--systems", nargs="+", choices=systems, default=["dense", "csp-65"])
    parser.add_argument("--axes", nargs="+", choices=list(AXES), default=list(AXES))
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--hidden", type=int, default=1024)
    add_dtype_option(parser)
    parser.add_argument("--requests", type=int, default=16, help="Least questions of a cell.")
    parser.add_argument("--flags", default="", help="Further ones for the servers, in one string.")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
