"""Policies compared over one data set: engines one after the other, results as they come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from vllm_csp.datasets.item import Photo
from vllm_csp.evaluation.asker import Asker
from vllm_csp.evaluation.engine import EngineAsker, EngineOptions, Host, decoder_size, plan_hosts
from vllm_csp.evaluation.outcome import PolicyResult
from vllm_csp.evaluation.policy_run import PolicyRun
from vllm_csp.evaluation.result_store import ResultStore
from vllm_csp.evaluation.runner import Pace, Runner


class Progress(Protocol):
    """Told what goes on; `terminal.TerminalProgress` draws it."""

    def starting(self, host: Host, photos: int) -> None:
        """An engine for these runs starts; it will see so many photos."""

    def finished_photos(self, count: int) -> None:
        """So many photos more are answered."""

    def finished(self, results: Sequence[PolicyResult]) -> None:
        """All results so far, in the order of the runs."""


@dataclass(frozen=True)
class Comparison:
    """What is compared. setting: what results depend on beside the policy, for the store."""

    runs: Sequence[PolicyRun]
    photos: Sequence[Photo]
    options: EngineOptions
    store: ResultStore
    setting: dict[str, Any] = field(default_factory=dict)
    share: bool = False
    pace: Pace = field(default_factory=Pace)


def compare(
    comparison: Comparison,
    progress: Progress,
    start: Callable[[Host, EngineOptions], Asker] = EngineAsker,
) -> list[PolicyResult]:
    """Results of all runs, in their order; those in the store are not made again.

    Every engine is ended before the next one starts. Raises: ValueError for impossible policies,
    before the first engine starts.
    """
    runs = comparison.runs
    size = decoder_size(comparison.options.checkpoint)
    settings = {run.name: _setting(run, comparison.setting, size) for run in runs}
    found: dict[str, PolicyResult] = {}
    for run in runs:
        if (kept := comparison.store.find(run.name, settings[run.name])) is not None:
            found[run.name] = kept
    left = [run for run in runs if run.name not in found]
    for host in plan_hosts(left, size, share=comparison.share):
        progress.starting(host, len(comparison.photos))
        for result in _answered(host, comparison, progress, start):
            comparison.store.keep(result, settings[result.name])
            found[result.name] = result
        progress.finished([found[run.name] for run in runs if run.name in found])
    return [found[run.name] for run in runs]


def _setting(run: PolicyRun, common: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    schedule = run.schedule(*size).model_dump_json()
    return {
        **common,
        "image_scale": run.image_scale,
        **asdict(run.sam),
        "schedule": schedule,
    }


def _answered(
    host: Host,
    comparison: Comparison,
    progress: Progress,
    start: Callable[[Host, EngineOptions], Asker],
) -> list[PolicyResult]:
    asker = start(host, comparison.options)
    forced = comparison.options.mode == "force"
    try:
        runner = Runner(asker, host.runs, forced=forced, pace=comparison.pace)
        return runner.run(comparison.photos, progress.finished_photos)
    finally:
        asker.close()
