"""Intervals: repeatable, paired, over images."""

from __future__ import annotations

import numpy as np
import pytest

from vllm_csp.evaluation.bootstrap import Bootstrap

IMAGES = [f"photo{number // 4}" for number in range(200)]


def scores(seed: int) -> list[float]:
    return np.random.default_rng(seed).random(len(IMAGES)).tolist()


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    first, second, other = Bootstrap(IMAGES), Bootstrap(IMAGES), Bootstrap(IMAGES, seed=1)
    assert first.giou(scores(1)) == second.giou(scores(1)) != other.giou(scores(1))


def test_the_mean_lies_inside() -> None:
    interval = Bootstrap(IMAGES).giou(scores(1))
    assert interval.low < np.mean(scores(1)) < interval.high


def test_an_even_gain_has_no_width_although_scores_vary() -> None:
    """Pairing: what both policies find hard falls out of the difference."""
    better = [score + 0.01 for score in scores(1)]
    interval = Bootstrap(IMAGES).difference(better, scores(1))
    assert (interval.low, interval.high) == pytest.approx((0.01, 0.01))


def test_questions_about_one_image_count_as_one_draw() -> None:
    """Four questions with the same score tell as much as one of them."""
    alone = [f"photo{number}" for number in range(50)]
    ious = np.random.default_rng(2).random(50).tolist()
    repeated = [iou for iou in ious for _ in range(4)]
    # Names are sorted, so that the same photos are drawn in both.
    whole = [name for name in alone for _ in range(4)]
    expected = Bootstrap(alone).giou(ious)
    found = Bootstrap(whole).giou(repeated)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_about_95_of_100_intervals_hold_the_true_mean() -> None:
    inside = 0
    for seed in range(100):
        sample = np.random.default_rng(seed).random(80)
        interval = Bootstrap([str(number) for number in range(80)], 500, seed).giou(sample.tolist())
        inside += interval.low <= 0.5 <= interval.high
    assert 88 <= inside <= 100


def test_another_number_of_masks_is_refused() -> None:
    with pytest.raises(ValueError, match="2 IoUs for 200 masks"):
        Bootstrap(IMAGES).giou([0.5, 0.5])
