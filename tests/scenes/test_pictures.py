"""Masks are the pixels that show the object."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from skimage.morphology import dilation, erosion

from vllm_csp.scenes import Scene, SceneSample, make_sample
from vllm_csp.scenes.painter import paint


@pytest.fixture(scope="module")
def samples() -> list[SceneSample]:
    return [make_sample(seed, "train") for seed in range(60)]


def pixels(sample: SceneSample) -> npt.NDArray[np.int64]:
    return np.asarray(sample.image).astype(np.int64)


def test_pixels_inside_a_mask_have_the_colour_of_its_object(samples: list[SceneSample]) -> None:
    for sample in samples:
        picture = pixels(sample)
        for thing, mask in zip(sample.scene.objects, sample.object_masks, strict=True):
            colours = [thing.rgb, *([tuple(c // 2 for c in thing.rgb)] if thing.striped else [])]
            inside = picture[erosion(mask, np.ones((3, 3)))]
            assert len(inside) > 200
            # Not all: the tip of a star that lies over it covers less than half of its last pixels.
            assert np.mean([tuple(pixel) not in colours for pixel in inside.tolist()]) < 0.002


def test_pixels_outside_all_masks_are_background(samples: list[SceneSample]) -> None:
    plain = [sample for sample in samples if sample.scene.background == "plain"]
    assert len(plain) > 10
    for sample in plain:
        outside = ~dilation(np.any(sample.object_masks, axis=0), np.ones((5, 5)))
        around = pixels(sample)[outside]
        assert (around == around[0]).all()


def test_a_mask_ends_where_the_object_covers_half_of_a_pixel(samples: list[SceneSample]) -> None:
    checked = 0
    for sample in samples:
        union = np.any(sample.object_masks, axis=0)
        if sample.scene.background != "plain":
            continue
        picture = pixels(sample)
        background = picture[~dilation(union, np.ones((3, 3)))][0]
        for index, thing in enumerate(sample.scene.objects):
            mask = sample.object_masks[index]
            others = [m for number, m in enumerate(sample.object_masks) if number != index]
            zone = dilation(mask, np.ones((5, 5)))
            if thing.striped or (zone & np.any(others, axis=0)).any():
                continue
            share = np.linalg.norm(picture - background, axis=2) / np.linalg.norm(
                np.array(thing.rgb) - background
            )
            assert share[mask].min() > 0.48
            assert share[zone & ~mask].max() < 0.52
            checked += 1
    assert checked > 15


def test_no_object_is_small_or_mostly_covered(samples: list[SceneSample]) -> None:
    for sample in samples:
        assert 2 <= len(sample.scene.objects) <= 6
        assert np.sum(sample.object_masks, axis=0).max() == 1
        for mask in sample.object_masks:
            ys, xs = mask.nonzero()
            # Two patches of a tower that sees 224 pixels in patches of 14.
            assert max(np.ptp(ys), np.ptp(xs)) + 1 >= 56
    covered = 0
    for sample in samples:
        shares = [
            mask.sum() / paint(Scene((thing,), "plain"), sample.image.copy())[0].sum()
            for thing, mask in zip(sample.scene.objects, sample.object_masks, strict=True)
        ]
        assert min(shares) > 0.8
        covered += min(shares) < 1
    assert covered > 3
