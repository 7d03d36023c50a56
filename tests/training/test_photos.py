"""Photos of training and evaluation are kept apart; their masks are those of the files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from vllm_csp.images import image_key, to_rgb
from vllm_csp.training.photos import MIN_AREA, Photo, photos


def test_no_photo_is_both_trained_on_and_held_out(assets: Path) -> None:
    train, held_out = photos(assets, "train"), photos(assets, "held_out")
    assert not {photo.key for photo in train} & {photo.key for photo in held_out}
    assert not contents(train) & contents(held_out)
    assert {photo.source for photo in held_out} == {"street", "clothing", "things"}


def contents(found: list[Photo]) -> set[str]:
    return {hashlib.sha256(photo.path.read_bytes()).hexdigest() for photo in found}


def test_no_two_photos_of_different_splits_have_the_same_pixels(assets: Path) -> None:
    keys = {
        split: {image_key(to_rgb(Image.open(photo.path))) for photo in photos(assets, split)[::7]}
        for split in ("train", "held_out")
    }
    assert not keys["train"] & keys["held_out"]


def test_masks_have_the_size_of_their_photo(assets: Path) -> None:
    for photo in photos(assets, "train")[::150]:
        width, height = Image.open(photo.path).size
        masks = photo.read_masks()
        assert masks and set(masks) <= set(photo.classes)
        for mask in masks.values():
            assert mask.shape == (height, width)
            assert (mask == 1).mean() >= MIN_AREA


def test_street_masks_share_no_pixel(assets: Path) -> None:
    photo = next(one for one in photos(assets, "held_out") if one.source == "street")
    inside = np.stack([mask == 1 for mask in photo.read_masks().values()])
    assert inside.sum(axis=0).max() == 1
