"""Shows how far a run is: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from vllm_csp.serving.batch.tally import Tally

SECONDS_BETWEEN_LINES = 30.0


class ProgressReport:
    """Use as a context manager; call `show` as often as is handy."""

    def __init__(self, tally: Tally, console: Console) -> None:
        self._tally = tally
        self._console = console
        self._last_line = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=None),
            TextColumn("{task.description}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self) -> None:
        """Bring the display up to date."""
        tally = self._tally
        self._bar.update(
            self._task, total=tally.total, completed=tally.done, description=self.text()
        )
        if not self._console.is_terminal:
            self._show_line()

    def text(self) -> str:
        """The figures in words."""
        tally = self._tally
        rows = f"{tally.done:,}" + (f" of {tally.total:,}" if tally.total else "") + " rows"
        parts = [rows, f"{tally.rate:.1f}/s"]
        if tally.seconds_left is not None:
            parts.append(f"{timedelta(seconds=round(tally.seconds_left))} left")
        return " · ".join([*parts, f"{tally.failed:,} failed"])

    def _show_line(self) -> None:
        if time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(self.text(), highlight=False)
