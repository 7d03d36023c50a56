"""The comparison as rows: one per policy, and one per policy and kind."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from vllm_csp.evaluation.bootstrap import RESAMPLES, Bootstrap, Interval
from vllm_csp.evaluation.outcome import PolicyResult

Row = dict[str, Any]


def policy_rows(results: Sequence[PolicyResult], resamples: int = RESAMPLES) -> list[Row]:
    """One row per policy; differences (`giou_gain`) are to the first one's gIoU.

    Raises: ValueError when the policies did not answer the same questions.
    """
    return [_row(result, results[0], resamples) for result in results]


def gain(
    result: PolicyResult, baseline: PolicyResult, resamples: int = RESAMPLES
) -> tuple[float, Interval]:
    """How much higher the gIoU of `result` is, and the interval of that, over the same masks.

    Raises: ValueError when they did not answer the same questions.
    """
    names, ious = _masks(result)
    same, base = _masks(baseline)
    if names != same:
        raise ValueError(
            f"{result.name} and {baseline.name} answered different questions: run them again"
        )
    draws = _draws(tuple(image for image, _ in names), resamples)
    difference = result.scores.total.giou - baseline.scores.total.giou
    return difference, draws.difference(ious, base)


def kind_rows(results: Sequence[PolicyResult]) -> list[Row]:
    """One row per policy and kind of question, kinds in alphabetical order."""
    rows = []
    for result in results:
        tallies = result.scores.kinds
        for kind in sorted({one.kind for one in result.outcomes}):
            mine = [one for one in result.outcomes if one.kind == kind]
            judged = [] if result.forced else mine
            tally = tallies.get(kind)
            rows.append(
                {
                    "policy": result.name,
                    "kind": kind,
                    "questions": len(mine),
                    "masks": tally.count if tally else 0,
                    "giou": round(tally.giou, 6) if tally else "",
                    "ciou": round(tally.ciou, 6) if tally else "",
                    "right_number": _share([one.right_number for one in judged]),
                    "right_text": _share([one.right_text for one in judged]),
                }
            )
    return rows


def write_csv(file: Path, rows: Sequence[Row]) -> None:
    """Rows with the first one's names as header."""
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]) if rows else [])
        writer.writeheader()
        writer.writerows(rows)


def write_report(
    folder: Path, results: Sequence[PolicyResult], setting: Row, resamples: int = RESAMPLES
) -> list[Row]:
    """Write `policies.csv`, `kinds.csv` and `report.json` into a folder; gives the policy rows."""
    rows, kinds = policy_rows(results, resamples), kind_rows(results)
    write_csv(folder / "policies.csv", rows)
    write_csv(folder / "kinds.csv", kinds)
    content = {"setting": setting, "policies": rows, "kinds": kinds}
    (folder / "report.json").write_text(json.dumps(content, indent=1) + "\n")
    return rows


@lru_cache(maxsize=4)
def _draws(images: tuple[str, ...], resamples: int) -> Bootstrap:
    # The same for every policy, and slow to draw for many photos.
    return Bootstrap(images, resamples)


def _masks(result: PolicyResult) -> tuple[list[tuple[str, str]], list[float]]:
    """Of every mask its image and question, and its IoU."""
    names, ious = [], []
    for one in result.outcomes:
        for overlap in one.overlaps:
            names.append((one.image, one.key))
            ious.append(overlap.iou)
    return names, ious


def _row(result: PolicyResult, baseline: PolicyResult, resamples: int) -> Row:
    total = result.scores.total
    images = len({one.image for one in result.outcomes})
    return {
        "policy": result.name,
        "giou": round(total.giou, 6),
        **_intervals(result, baseline, resamples),
        "ciou": round(total.ciou, 6),
        **{name: round(value, 4) for name, value in result.costs.items()},
        "image_scale": result.image_scale,
        **asdict(result.sam),
        "images_per_second": _rate(images, result.seconds),
        "questions_per_second": _rate(len(result.outcomes), result.seconds),
        "images": images,
        "questions": len(result.outcomes),
        "masks": total.count,
        "skipped": result.skipped,
        **_answers(result),
    }


def _intervals(result: PolicyResult, baseline: PolicyResult, resamples: int) -> Row:
    names, ious = _masks(result)
    if not ious:
        return dict.fromkeys(("giou_low", "giou_high", "giou_gain", "gain_low", "gain_high"), "")
    own = _draws(tuple(image for image, _ in names), resamples).giou(ious)
    difference, interval = gain(result, baseline, resamples)
    return {
        "giou_low": round(own.low, 6),
        "giou_high": round(own.high, 6),
        "giou_gain": round(difference, 6),
        "gain_low": round(interval.low, 6),
        "gain_high": round(interval.high, 6),
    }


def _answers(result: PolicyResult) -> Row:
    """How often the answer itself is right, if the model wrote it; see `docs/evaluation.md`."""
    outcomes = [] if result.forced else result.outcomes
    absent = [one for one in outcomes if not one.overlaps]
    present = [one for one in outcomes if one.overlaps]
    return {
        "right_number": _share([one.right_number for one in outcomes]),
        "right_text": _share([one.right_text for one in outcomes]),
        "absent_noticed": _share([one.answered == 0 for one in absent]),
        "present_missed": _share([one.answered == 0 for one in present]),
    }


def _share(flags: Sequence[bool | None]) -> float | str:
    known = [flag for flag in flags if flag is not None]
    return round(sum(known) / len(known), 4) if known else ""


def _rate(count: int, seconds: float | None) -> float | str:
    return round(count / seconds, 3) if seconds else ""
