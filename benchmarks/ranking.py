"""Accuracy of all policies at equal budgets: the standard sweep of `benchmarks/ranking.json`.

    python -m benchmarks.ranking --checkpoint DIR --data FOLDER [--split test] [--limit 100]

The sweep: `dense`; at 90 and at 77 of 256 mean visual tokens per layer csp with its cluster
choices, scatter and score variants, and its rivals; the same at 64 and at 128 tokens after pruning.
Policies of one KV layout share an engine, so there are no figures of speed. Writes ranking.csv,
.json and .png into benchmarks/results (`--name photos`: ranking-photos.*); an interrupted sweep
goes on where it was. Beside the report's columns, `on_csp` is the gain in gIoU over `csp grid` of
the same budget. The last line on stdout is one JSON document.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS

SWEEP = Path(__file__).parent / "ranking.json"


def main() -> None:
    """Run the sweep and report."""
    from rich.console import Console

    from vllm_csp.datasets.registry import Source, read_names, read_photos
    from vllm_csp.evaluation.evaluate import Evaluation, run_evaluation
    from vllm_csp.evaluation.policy_run import read_policy_runs

    arguments = _arguments()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    only = read_names(arguments.only) if arguments.only else None
    source = Source(
        arguments.data,
        split=arguments.split,
        template=arguments.question,
        least_share=arguments.least_share,
        only=only,
        limit=arguments.limit,
        seed=arguments.seed,
    )
    evaluation = Evaluation(
        source=source,
        photos=read_photos(source),
        runs=read_policy_runs([], arguments.sweep),
        output=arguments.work,
        checkpoint=arguments.checkpoint,
        share_engines=True,
        engine={"max_model_len": 1024, **json.loads(arguments.engine)},
    )
    width = None if sys.stderr.isatty() else 140
    results = run_evaluation(evaluation, Console(stderr=True, width=width))
    print(json.dumps(_report(arguments, results)))


def _report(arguments: argparse.Namespace, results: list[Any]) -> dict[str, Any]:
    from vllm_csp.evaluation.report import gain, write_csv

    report: dict[str, Any] = json.loads((arguments.work / "report.json").read_text())
    by_name = {one.name: one for one in results}
    for row in report["policies"]:
        rival = by_name.get(f"csp grid{_budget(row['policy'])}")
        row |= {"on_csp": "", "on_csp_low": "", "on_csp_high": ""}
        if rival is not None and _budget(row["policy"]):
            difference, interval = gain(by_name[row["policy"]], rival)
            row["on_csp"] = round(difference, 6)
            row["on_csp_low"], row["on_csp_high"] = round(interval.low, 6), round(interval.high, 6)
    # For sure: the whole interval lies on one side.
    report["beat_csp_grid"] = [
        row["policy"] for row in report["policies"] if row["on_csp"] and row["on_csp_low"] > 0
    ]
    stem = "-".join(["ranking", *([arguments.name] if arguments.name else [])])
    RESULTS.mkdir(exist_ok=True)
    write_csv(RESULTS / f"{stem}.csv", report["policies"])
    write_csv(RESULTS / f"{stem}-kinds.csv", report["kinds"])
    (RESULTS / f"{stem}.json").write_text(json.dumps(report, indent=1) + "\n")
    if (arguments.work / "accuracy.png").is_file():
        shutil.copy(arguments.work / "accuracy.png", RESULTS / f"{stem}.png")
    return report


def _budget(name: str) -> str:
    """ " @mean 90" of "fastv late @mean 90"; empty for a policy with a budget of its own."""
    before, mark, budget = name.rpartition(" @")
    return mark + budget if before else ""


def _arguments() -> argparse.Namespace:
    from vllm_csp.datasets.item import SHORT_QUESTION

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="a folder or a hub id")
    parser.add_argument("--data", required=True, type=Path, help="as for vllm-csp eval")
    parser.add_argument("--split", help="part of the data set")
    parser.add_argument("--only", type=Path, help="file with names of the photos to take")
    parser.add_argument("--limit", type=int, help="take so many photos, drawn")
    parser.add_argument("--seed", type=int, default=0, help="seed of that draw")
    parser.add_argument("--question", default=SHORT_QUESTION, help="question for a class name")
    parser.add_argument("--least-share", type=float, default=0.0, help="of the photo, for a class")
    parser.add_argument("--sweep", type=Path, default=SWEEP, help="policies as JSON")
    parser.add_argument("--name", default="", help="of the data, for the names of the results")
    parser.add_argument("--engine", default="{}", help="further arguments of vllm.LLM as JSON")
    parser.add_argument("--work", type=Path, help="folder for what is unfinished")
    arguments = parser.parse_args()
    if arguments.work is None:
        from vllm_csp.cache_folder import CACHE

        arguments.work = CACHE / "ranking" / (arguments.name or "default")
    return arguments


if __name__ == "__main__":
    main()
