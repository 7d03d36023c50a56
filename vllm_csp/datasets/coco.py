"""COCO: `instances.json` and its photos, with a question for each class in an image."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vllm_csp.datasets.annotations import Annotations, find_image
from vllm_csp.datasets.item import IGNORED, SHORT_QUESTION, Item, Photo, Raster


def read_coco(
    folder: Path,
    images: Path | None = None,
    template: str = SHORT_QUESTION,
    least_share: float = 0.0,
) -> list[Photo]:
    """Photos with at least one annotated object; the target of a class are all its instances.

    images: where the photos are, if not in the folder or its `images`. Crowds (`iscrowd`) are
    ignored regions, and a class that is there only as a crowd is not asked for. least_share: of the
    photo that a class must cover to be asked for.
    """
    annotations = Annotations(folder / "instances.json")
    photos = []
    for number in sorted(annotations.by_image):
        record = annotations.images[number]
        if any(not one.get("iscrowd") for one in annotations.by_image[number]):
            path = find_image(images or folder, record["file_name"])
            photos.append(Photo(path, partial(_items, annotations, record, template, least_share)))
    return photos


def _items(
    annotations: Annotations, record: dict[str, Any], template: str, least_share: float
) -> list[Item]:
    mine = annotations.by_image[record["id"]]
    present = sorted({one["category_id"] for one in mine if not one.get("iscrowd")})
    readers = {one: partial(_rasters, annotations, record, one) for one in present}
    return [
        Item(
            key=f"{Path(record['file_name']).stem}/{annotations.names[one]}",
            question=template.format(annotations.names[one]),
            kind=annotations.names[one],
            num_masks=1,
            rasters=read,
        )
        for one, read in readers.items()
        if not least_share or (read()[0] == 1).mean() >= least_share
    ]


def _rasters(annotations: Annotations, record: dict[str, Any], category: int) -> list[Raster]:
    mine = [one for one in annotations.by_image[record["id"]] if one["category_id"] == category]
    size = (record["height"], record["width"])
    crowd = annotations.union([one for one in mine if one.get("iscrowd")], size)
    target = annotations.union([one for one in mine if not one.get("iscrowd")], size)
    raster = np.zeros(size, np.uint8)
    raster[crowd] = IGNORED
    raster[target] = 1
    return [raster]
