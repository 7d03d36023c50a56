"""Pictures of a benchmark's rows, next to its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vllm_csp.evaluation.plot import COLOURS, MARKERS, can_plot


def plot_lines(
    file: Path, rows: Sequence[dict[str, Any]], x: str, y: str, by: str, title: str
) -> None:
    """`y` over `x`, a line for each value of `by`; does nothing without matplotlib."""
    if not can_plot():
        return
    figure, axes, save = _figure(file)
    for number, name in enumerate(dict.fromkeys(row[by] for row in rows)):
        mine = sorted((row[x], row[y]) for row in rows if row[by] == name)
        axes.plot(
            *zip(*mine, strict=True),
            marker=MARKERS[number // len(COLOURS) % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            label=str(name),
        )
    axes.set_xscale("log", base=2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x.replace("_", " "))
    axes.set_ylabel(y.replace("_", " "))
    axes.set_title(title)
    axes.legend()
    save(figure)


def plot_bars(file: Path, values: dict[str, float], label: str, title: str) -> None:
    """One bar per name; does nothing without matplotlib."""
    if not can_plot():
        return
    figure, axes, save = _figure(file)
    axes.barh(list(values)[::-1], list(values.values())[::-1], color=COLOURS[0])
    axes.set_xlabel(label)
    axes.set_title(title)
    save(figure)


def _figure(file: Path) -> tuple[Any, Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")

    def save(drawn: Any) -> None:
        drawn.savefig(file, dpi=120)
        pyplot.close(drawn)

    return figure, axes, save
