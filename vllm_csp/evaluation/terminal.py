"""A comparison as people see it: a progress bar while it runs, a table at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from vllm_csp.evaluation.engine import Host
from vllm_csp.evaluation.outcome import PolicyResult

COLUMNS = {
    "policy": "policy",
    "giou": "gIoU",
    "interval": "95 %",
    "ciou": "cIoU",
    "gain": "gain on the first",
    "mean_visual_tokens": "tokens",
    "flops_ratio": "FLOPs",
    "kv_ratio": "KV",
    "questions_per_second": "asked/s",
}
ANSWER_COLUMNS = {"right_number": "[SEG]s right", "absent_noticed": "absent"}


class TerminalProgress:
    """A bar of photos, counted once for every policy; writes the report as policies finish."""

    def __init__(
        self,
        console: Console,
        num_runs: int,
        write: Callable[[Sequence[PolicyResult]], object],
    ) -> None:
        self._num_runs = num_runs
        self._write = write
        self._hosted = 0
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bars.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def starting(self, host: Host, photos: int) -> None:
        """See `comparison.Progress`."""
        first, more = host.runs[0].name, len(host.runs) - 1
        self._hosted += len(host.runs)
        name = f"{first} and {more} more" if more else first
        self.asking(f"{name} ({self._hosted}/{self._num_runs})", photos)

    def asking(self, whom: str, photos: int) -> None:
        """Start a bar of so many photos."""
        self._bars.reset(self._task, total=photos, description=whom)

    def finished_photos(self, count: int) -> None:
        """See `comparison.Progress`."""
        self._bars.advance(self._task, count)

    def finished(self, results: Sequence[PolicyResult]) -> None:
        """See `comparison.Progress`."""
        self._hosted = len(results)
        self._write(results)


def comparison_table(rows: Sequence[dict[str, Any]]) -> Table:
    """The rows' most telling columns."""
    answered = any(row["right_number"] != "" for row in rows)
    columns = {**COLUMNS, **(ANSWER_COLUMNS if answered else {})}
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in columns.values():
        table.add_column(title, no_wrap=True)
    for row in rows:
        shown = {
            **row,
            "giou": f"{row['giou']:.4f}",
            "ciou": f"{row['ciou']:.4f}",
            "interval": _range(row["giou_low"], row["giou_high"], ""),
            "gain": _range(row["gain_low"], row["gain_high"], "+"),
        }
        table.add_row(*(str(shown.get(name, "")) for name in columns))
    return table


def _range(low: float | str, high: float | str, sign: str) -> str:
    if isinstance(low, str) or isinstance(high, str):
        return ""
    return f"{low:{sign}.3f}..{high:{sign}.3f}"
