"""Accuracy against budget, as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Okabe and Ito's colours, told apart by colour-blind readers too; then markers start over.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def can_plot() -> bool:
    """Whether matplotlib is there; it comes with the extra `eval`."""
    return find_spec("matplotlib") is not None


def plot_budget(file: Path, rows: Sequence[dict[str, Any]], title: str = "") -> None:
    """gIoU with its interval against mean visual tokens per layer, a point for each policy row.

    Points are coloured by the first word of the row's `policy`. A run on shrunk photos stands at
    the tokens that photos of that size would have, although it computed on all of them. Raises:
    ImportError without matplotlib.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 6), layout="constrained")
    families = list(dict.fromkeys(_family(row) for row in rows))
    for number, family in enumerate(families):
        mine = [row for row in rows if _family(row) == family and "mean_visual_tokens" in row]
        axes.errorbar(
            [row["mean_visual_tokens"] * row["image_scale"] ** 2 for row in mine],
            [row["giou"] for row in mine],
            yerr=[
                [max(0.0, row["giou"] - (row["giou_low"] or row["giou"])) for row in mine],
                [max(0.0, (row["giou_high"] or row["giou"]) - row["giou"]) for row in mine],
            ],
            fmt=MARKERS[number // len(COLOURS) % len(MARKERS)],
            color=COLOURS[number % len(COLOURS)],
            label=family,
            capsize=2,
            alpha=0.8,
        )
    if rows:
        axes.axhline(rows[0]["giou"], linewidth=0.8, linestyle="--", color="gray")
    axes.set_xlabel("mean visual tokens per layer")
    axes.set_ylabel("gIoU, 95 % interval over images")
    axes.set_title(title)
    axes.legend()
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


def _family(row: dict[str, Any]) -> str:
    return str(row["policy"]).replace(":", " ").split()[0]
