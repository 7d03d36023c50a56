"""Folders of photos and masks of class indices (CamVid, CCP), with a question for each class."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from vllm_csp.datasets.item import (
    IGNORED,
    SHORT_QUESTION,
    DatasetError,
    Item,
    Photo,
    Raster,
)

IGNORED_LABELS = frozenset({"unlabelled", "unlabeled", "ignore", "void"})
"""Pixels that nobody labelled: they count nowhere."""
BACKGROUND_LABELS = frozenset({"null", "background"})
"""Pixels of no class: they count as not wanted, and nobody asks for them."""


def read_semantic(
    folder: Path,
    split: str | None = None,
    template: str = SHORT_QUESTION,
    least_share: float = 0.0,
) -> list[Photo]:
    """Photos `[split/]images/x.*` with masks `[split/]masks/x.png`, names in `labels.json`.

    `labels.json` is a list: the mask's value is the index into it; values behind its end are
    ignored. least_share: of the photo that a class must cover to be asked
    for. Raises `DatasetError` when a part is missing.
    """
    labels = _labels(folder / "labels.json")
    chosen = folder / split if split else folder
    if not (chosen / "images").is_dir() or not (chosen / "masks").is_dir():
        parts = sorted(one.parent.name for one in folder.glob("*/masks"))
        hint = f"; choose one of its splits: {', '.join(parts)}" if parts else ""
        raise DatasetError(f"{chosen} needs the folders `images` and `masks`{hint}")
    photos = []
    for image in sorted((chosen / "images").iterdir()):
        mask = chosen / "masks" / f"{image.stem}.png"
        if not mask.is_file():
            raise DatasetError(f"{image} has no mask {mask}")
        photos.append(
            Photo(image, partial(_items, image.stem, mask, labels, template, least_share))
        )
    return photos


def class_names(folder: Path) -> tuple[str, ...]:
    """Names in `labels.json` that are asked for. Raises `DatasetError` where it is not read."""
    silent = IGNORED_LABELS | BACKGROUND_LABELS
    return tuple(name for name in _labels(folder / "labels.json") if name not in silent)


def _labels(file: Path) -> list[str]:
    try:
        labels = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file} is not read: {error}") from error
    if not isinstance(labels, list) or not all(isinstance(one, str) for one in labels):
        raise DatasetError(f"{file} must be a list of class names, in order of the masks' values")
    return labels


def _items(
    name: str, mask: Path, labels: Sequence[str], template: str, least_share: float
) -> list[Item]:
    shares = np.bincount(_indices(mask).ravel(), minlength=256) / _indices(mask).size
    present = [i for i in range(len(labels)) if shares[i] > 0 and shares[i] >= least_share]
    asked = [one for one in present if labels[one] not in IGNORED_LABELS | BACKGROUND_LABELS]
    return [
        Item(
            key=f"{name}/{labels[one]}",
            question=template.format(labels[one]),
            kind=labels[one],
            num_masks=1,
            rasters=partial(_rasters, mask, labels, one),
        )
        for one in asked
    ]


def _rasters(mask: Path, labels: Sequence[str], wanted: int) -> list[Raster]:
    indices = _indices(mask)
    unlabelled = [index for index, label in enumerate(labels) if label in IGNORED_LABELS]
    raster = (indices == wanted).astype(np.uint8)
    raster[np.isin(indices, unlabelled) | (indices >= len(labels))] = IGNORED
    return [raster]


@lru_cache(maxsize=4)  # All classes of a photo are read one after the other.
def _indices(mask: Path) -> Raster:
    with Image.open(mask) as opened:
        if opened.mode not in ("L", "P"):
            raise DatasetError(f"{mask} has mode {opened.mode}; class indices need 8-bit L or P")
        return np.array(opened, dtype=np.uint8)
