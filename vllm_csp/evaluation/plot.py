"""Accuracy against budget, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Okabe and Ito's colours, told apart by colour-blind readers too; then markers start over.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
APART = 0.6
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def can_plot() -> bool:
    """Whether matplotlib is there; it comes with the extra `eval`."""
    return find_spec("matplotlib") is not None


def plot_budget(file: Path, rows: Sequence[dict[str, Any]], title: str = "") -> None:
    """gIoU against mean visual tokens per layer, a point for each policy row.

    Bars are the intervals of the difference to the first row. Points are coloured by the first word
    of the row's `policy`; those of one budget stand side by side. A run on shrunk photos stands at
    the tokens that photos of that size would have, although it computed on all of them. Raises:
    ImportError without matplotlib.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 6), layout="constrained")
    drawn = [row for row in rows if "mean_visual_tokens" in row and row["giou_gain"] != ""]
    places = _side_by_side([row["mean_visual_tokens"] * row["image_scale"] ** 2 for row in drawn])
    for number, family in enumerate(dict.fromkeys(_family(row) for row in drawn)):
        mine = [index for index, row in enumerate(drawn) if _family(row) == family]
        axes.errorbar(
            [places[i] for i in mine],
            [drawn[i]["giou"] for i in mine],
            yerr=[
                [max(0.0, drawn[i]["giou_gain"] - drawn[i]["gain_low"]) for i in mine],
                [max(0.0, drawn[i]["gain_high"] - drawn[i]["giou_gain"]) for i in mine],
            ],
            fmt=MARKERS[number // len(COLOURS) % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            label=family,
            capsize=2,
        )
    if drawn:
        axes.axhline(drawn[0]["giou"], linewidth=0.8, linestyle="--", color="gray")
        axes.legend()
    axes.set_xlabel("mean visual tokens per layer (points of one budget stand side by side)")
    axes.set_ylabel("gIoU; bars: 95 % of the difference to the first policy")
    axes.set_title(title)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _side_by_side(places: Sequence[float]) -> list[float]:
    """Places moved to the right, `APART` tokens from the one before at least."""
    moved = list(places)
    last = float("-inf")
    for index in sorted(range(len(places)), key=lambda i: places[i]):
        last = moved[index] = max(places[index], last + APART)
    return moved


def _family(row: dict[str, Any]) -> str:
    return str(row["policy"]).replace(":", " ").split()[0]
