"""COCO annotations: an index of `instances.json`, and masks of polygons and run lengths."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco

from vllm_csp.datasets.item import DatasetError
from vllm_csp.masks import decode_counts, decode_runs

Pixels = npt.NDArray[np.bool_]


class Annotations:
    """`instances.json`: images and annotations by id, category names, annotations by image."""

    def __init__(self, file: Path) -> None:
        try:
            content = json.loads(file.read_text())
            self.images = {one["id"]: one for one in content["images"]}
            self.annotations = {one["id"]: one for one in content["annotations"]}
            self.names = {one["id"]: str(one["name"]) for one in content["categories"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DatasetError(
                f"{file} is not read: {error!r}. It must be a COCO file with `images`, "
                "`annotations` and `categories`"
            ) from error
        self.by_image: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        for one in content["annotations"]:
            self.by_image[one["image_id"]].append(one)

    def mask(self, annotation: dict[str, Any]) -> Pixels:
        """The annotation's mask, bool [H, W] of its image."""
        image = self.images[annotation["image_id"]]
        return decode_segmentation(annotation["segmentation"], (image["height"], image["width"]))

    def union(self, annotations: list[dict[str, Any]], size: tuple[int, int]) -> Pixels:
        """Pixels of any of the annotations; none for an empty list."""
        pixels = np.zeros(size, bool)
        for one in annotations:
            pixels |= self.mask(one)
        return pixels


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> Pixels:
    """Bool [H, W] of polygons, or of run lengths as a list or as COCO's text.

    Polygons that overlap are joined. Raises `DatasetError` for anything else.
    """
    height, width = size
    try:
        if isinstance(segmentation, list):
            if not segmentation:
                return np.zeros(size, bool)
            rle = coco.merge(coco.frPyObjects(segmentation, height, width))
            mask: Pixels = coco.decode(rle).astype(bool)
        elif isinstance(segmentation["counts"], list):
            mask = decode_runs(np.array(segmentation["counts"]), *segmentation["size"])
        else:
            mask = decode_counts(segmentation["counts"], *segmentation["size"])
    except Exception as error:  # pycocotools raises many types, and plain ones too.
        raise DatasetError(
            f"a segmentation is neither polygons nor run lengths: {error}"
        ) from error
    if mask.shape != size:
        raise DatasetError(f"a mask of {mask.shape} pixels belongs to an image of {size}")
    return mask


def find_image(folder: Path, name: str) -> Path:
    """The image `name` of a data set, in its folder `images` or beside it.

    Raises: `DatasetError` when it is not there, or outside.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DatasetError(f"image {name} lies outside {folder}")
    for path in (folder / "images" / name, folder / name):
        if path.is_file():
            return path
    raise DatasetError(f"image {name} is neither in {folder / 'images'} nor in {folder}")
