"""Real photos with class masks: street scenes (CamVid), clothing (CCP), things (COCO)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco_mask

from vllm_csp.training.questions import IGNORE, Mask

MIN_AREA = 0.001
"""Classes that cover less of the photo are not asked for."""

HELD_OUT = 5
"""One photo in so many is held out, where the data set has no split of its own."""

ClassMasks = dict[str, Mask]


@dataclass(frozen=True)
class Photo:
    """A photo, the classes it may be asked for, and how to read the masks of those it shows."""

    source: str
    path: Path
    classes: tuple[str, ...]
    read_masks: Callable[[], ClassMasks]

    @property
    def key(self) -> str:
        """Name of the photo among all sources."""
        return f"{self.source}/{self.path.stem}"


def photos(assets: Path, split: str) -> list[Photo]:
    """All photos of a split, "train" or "held_out"; no photo is in both."""
    return [*street(assets, split), *clothing(assets, split), *things(assets, split)]


def street(assets: Path, split: str) -> list[Photo]:
    """CamVid in its own split."""
    names = json.loads((assets / "camvid/labels.json").read_text())
    folder = assets / "camvid" / ("train" if split == "train" else "val")
    return _semantic("street", folder, names, IGNORE_CLASS["street"])


def clothing(assets: Path, split: str) -> list[Photo]:
    """Clothing Co-Parsing."""
    names = json.loads((assets / "ccp/labels.json").read_text())
    found = _semantic("clothing", assets / "ccp", names, IGNORE_CLASS["clothing"])
    return [photo for photo in found if held_out(photo.path.stem) == (split != "train")]


IGNORE_CLASS = {"street": 11, "clothing": 0}


def things(assets: Path, split: str) -> list[Photo]:
    """COCO instances, all of a class in one mask."""
    data = json.loads((assets / "coco/instances.json").read_text())
    names = {category["id"]: category["name"] for category in data["categories"]}
    of_image: dict[int, list[dict[str, Any]]] = {}
    for annotation in data["annotations"]:
        of_image.setdefault(annotation["image_id"], []).append(annotation)
    found = []
    for image in data["images"]:
        annotations = of_image.get(image["id"], [])
        path = assets / "coco/images" / image["file_name"]
        if annotations and held_out(path.stem) == (split != "train"):
            size = (image["height"], image["width"])
            read = partial(_coco_masks, annotations, names, size)
            found.append(Photo("things", path, tuple(sorted(names.values())), read))
    return found


def held_out(name: str) -> bool:
    """Whether a photo is kept for evaluation, by a hash of its name."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0


def _semantic(source: str, folder: Path, names: list[str], nothing: int) -> list[Photo]:
    classes = tuple(name for index, name in enumerate(names) if index != nothing)
    found = []
    for path in sorted((folder / "images").glob("*.jpg")):
        labels = folder / "masks" / f"{path.stem}.png"
        read = partial(_class_masks, labels, names, nothing, source == "street")
        found.append(Photo(source, path, classes, read))
    return found


def _class_masks(labels: Path, names: list[str], nothing: int, unknown: bool) -> ClassMasks:
    """Masks of the classes in a label image; `nothing` is unknown or simply another class."""
    indices = np.asarray(Image.open(labels))
    masks = {}
    for index in np.unique(indices):
        if index == nothing or index >= len(names):
            continue
        mask = (indices == index).astype(np.uint8)
        if mask.mean() < MIN_AREA:
            continue
        if unknown:
            mask[indices == nothing] = IGNORE
        masks[names[index]] = mask
    return masks


def _coco_masks(
    annotations: list[dict[str, Any]], names: dict[int, str], size: tuple[int, int]
) -> ClassMasks:
    masks: ClassMasks = {}
    for annotation in annotations:
        mask = masks.setdefault(names[annotation["category_id"]], np.zeros(size, np.uint8))
        mask[_coco_mask(annotation["segmentation"], size)] = 1
    return {name: mask for name, mask in masks.items() if mask.mean() >= MIN_AREA}


def _coco_mask(segmentation: Any, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    if isinstance(segmentation, list):
        segmentation = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        segmentation = coco_mask.frPyObjects(segmentation, *size)
    decoded: npt.NDArray[np.bool_] = coco_mask.decode(segmentation).astype(bool)
    return decoded
