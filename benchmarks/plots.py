"""Pictures of a benchmark's rows, next to its table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vllm_csp.evaluation.plot import COLOURS, MARKERS, can_plot


def plot_lines(
    file: Path, rows: Sequence[dict[str, Any]], x: str, y: str, by: str, title: str
) -> None:
    """`y` over `x`, a line for each value of `by`, or a bar if there is but one `x`.

    Does nothing without matplotlib.
    """
    if not can_plot():
        return
    if len(found := {row[x] for row in rows}) == 1:
        bars = {str(row[by]): float(row[y]) for row in rows}
        plot_bars(file, bars, _words(y), f"{title}, {_words(x)} {found.pop()}")
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
    axes.set_xlabel(_words(x))
    axes.set_ylabel(_words(y))
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


def _words(name: str) -> str:
    return name.replace("_", " ")


def _figure(file: Path) -> tuple[Any, Any, Any]:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")

    def save(drawn: Any) -> None:
        drawn.savefig(file, dpi=120)
        pyplot.close(drawn)

    return figure, axes, save
