"""One evaluation from start to report: what `vllm-csp eval` and the ranking benchmark run."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from vllm_csp.config import ConversationTemplate
from vllm_csp.datasets.item import Photo
from vllm_csp.datasets.registry import Source
from vllm_csp.evaluation.comparison import Comparison, compare
from vllm_csp.evaluation.engine import EngineOptions
from vllm_csp.evaluation.outcome import PolicyResult
from vllm_csp.evaluation.plot import can_plot, plot_budget
from vllm_csp.evaluation.policy_run import PolicyRun
from vllm_csp.evaluation.report import Row, write_report
from vllm_csp.evaluation.result_store import ResultStore, folder_state
from vllm_csp.evaluation.runner import Pace, Runner
from vllm_csp.evaluation.sam_options import SamOptions
from vllm_csp.evaluation.server_asker import ServerAsker
from vllm_csp.evaluation.terminal import TerminalProgress, comparison_table


@dataclass(frozen=True)
class Evaluation:
    """What is asked of whom. engine: further arguments of `vllm.LLM`."""

    source: Source
    photos: Sequence[Photo]
    runs: Sequence[PolicyRun]
    output: Path
    checkpoint: str = ""
    mode: Literal["force", "generate"] = "force"
    template: ConversationTemplate = "llava_v1"
    max_tokens: int = 64
    share_engines: bool = False
    engine: Mapping[str, Any] = field(default_factory=dict)
    base_url: str = ""
    api_key: str = ""
    fresh: bool = False
    pace: Pace = field(default_factory=Pace)


def run_evaluation(evaluation: Evaluation, console: Console) -> list[PolicyResult]:
    """Ask, score, write the report into `evaluation.output`, show it.

    Raises: ValueError for what cannot be evaluated, RuntimeError when an engine does not start,
    `ServerError` or `httpx.HTTPError` from a server.
    """
    if bool(evaluation.checkpoint) == bool(evaluation.base_url):
        raise ValueError("name what to evaluate: --checkpoint FOLDER, or --base-url of a server")
    evaluation.output.mkdir(parents=True, exist_ok=True)
    setting = _setting(evaluation)

    def write(results: Sequence[PolicyResult]) -> list[Row]:
        return write_report(evaluation.output, results, setting)

    ask = _ask_server if evaluation.base_url else _ask_engines
    with TerminalProgress(console, len(evaluation.runs), write) as progress:
        results = ask(evaluation, progress)
    rows = write(results)
    console.print(comparison_table(rows))
    _plot(evaluation, rows, console)
    if results[0].skipped:
        console.print(
            f"{results[0].skipped} questions with no target or several were left out: mode force "
            "asks for one mask. --mode generate asks them too."
        )
    return results


def _ask_engines(evaluation: Evaluation, progress: TerminalProgress) -> list[PolicyResult]:
    store = evaluation.output / "answers"
    if evaluation.fresh:
        shutil.rmtree(store, ignore_errors=True)
    pace = evaluation.pace
    scales = {run.image_scale for run in evaluation.runs}
    options = EngineOptions(
        checkpoint=evaluation.checkpoint,
        mode=evaluation.mode,
        template=evaluation.template,
        max_tokens=evaluation.max_tokens,
        # Every photo in flight, at every scale, and the blank one of the warm-up.
        images_in_flight=pace.photos * len(scales) + 1,
        arguments=evaluation.engine,
    )
    comparison = Comparison(
        evaluation.runs,
        evaluation.photos,
        options,
        ResultStore(store),
        _dependencies(evaluation),
        evaluation.share_engines,
        pace,
    )
    return compare(comparison, progress)


def _ask_server(evaluation: Evaluation, progress: TerminalProgress) -> list[PolicyResult]:
    runs = evaluation.runs
    if any(run.mean is not None or run.kept is not None for run in runs):
        raise ValueError("budgets (mean, keep) need the model: use --checkpoint, or give knobs")
    if any(run.sam != SamOptions() for run in runs):
        raise ValueError("settings of SAM are chosen when a server starts: use --checkpoint")
    if len(runs) > 1 and any(run.policy == "dense" for run in runs):
        raise ValueError(
            "a server has no policy `dense` beside its own: leave it out, or use --checkpoint"
        )
    settings = [
        {"policy": run.policy, **run.knobs} if run.policy != "dense" else {} for run in runs
    ]
    asker = ServerAsker(
        evaluation.base_url,
        settings,
        mode=evaluation.mode,
        template=evaluation.template,
        max_tokens=evaluation.max_tokens,
        api_key=evaluation.api_key,
    )
    try:
        progress.asking("the server", len(evaluation.photos))
        forced = evaluation.mode == "force"
        runner = Runner(asker, runs, forced=forced, pace=evaluation.pace)
        return runner.run(evaluation.photos, progress.finished_photos)
    finally:
        asker.close()


def _dependencies(evaluation: Evaluation) -> dict[str, Any]:
    """What a policy's result depends on beside the policy."""
    return {
        "source": _plain(evaluation.source),
        "photos": [str(photo.path) for photo in evaluation.photos],
        "data": folder_state(str(evaluation.source.folder)),
        "checkpoint": [evaluation.checkpoint, folder_state(evaluation.checkpoint)],
        "mode": [evaluation.mode, evaluation.template, evaluation.max_tokens],
        "engine": dict(evaluation.engine),
        "shared": evaluation.share_engines,
    }


def _setting(evaluation: Evaluation) -> dict[str, Any]:
    """What a reader of the report must know; names instead of paths."""
    source = evaluation.source
    return {
        "data": {**_plain(source), "folder": source.folder.resolve().name, "images": ""},
        "photos": len(evaluation.photos),
        "checkpoint": Path(evaluation.checkpoint).name or "a server's",
        "mode": evaluation.mode,
        "template": evaluation.template,
        "engine": dict(evaluation.engine),
        "share_engines": evaluation.share_engines,
        "policies": [asdict(run) for run in evaluation.runs],
        "cpu_cores": os.cpu_count(),
        "machine": platform.machine(),
        "torch": version("torch"),
    }


def _plain(source: Source) -> dict[str, Any]:
    named = None if source.only is None else sorted(source.only)
    paths = {"folder": str(source.folder), "images": str(source.images or "")}
    return {**asdict(source), **paths, "only": named}


def _plot(evaluation: Evaluation, rows: Sequence[Row], console: Console) -> None:
    if not can_plot():
        console.print("no plot: matplotlib is missing (pip install matplotlib)", markup=False)
        return
    title = f"{evaluation.source.folder.name}: gIoU against budget"
    plot_budget(evaluation.output / "accuracy.png", rows, title)
