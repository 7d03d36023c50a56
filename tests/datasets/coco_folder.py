"""A small COCO data set: two photos, polygons, both forms of run lengths, a crowd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

SIZE = (12, 16)
CAT, DOG = 17, 18


def square(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    """A filled square, bool [12, 16]; ends are exclusive."""
    mask = np.zeros(SIZE, bool)
    mask[top:bottom, left:right] = True
    return mask


def polygon(left: int, top: int, right: int, bottom: int) -> list[float]:
    """The polygon of `square`."""
    return [left, top, right, top, right, bottom, left, bottom]


def counts(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths as a list, column by column, the first run of zeros."""
    flat = mask.ravel(order="F").astype(int)
    edges = [0, *(np.nonzero(np.diff(flat))[0] + 1).tolist(), len(flat)]
    runs = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *runs] if flat[0] else runs}


def text_counts(mask: np.ndarray) -> dict[str, Any]:
    """Run lengths as COCO's text."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}


def write_coco(folder: Path) -> None:
    """Photo 1: two cats and a crowd of cats, a dog in two pieces. Photo 2: a crowd of dogs only."""
    (folder / "images").mkdir(parents=True)
    for number in (1, 2):
        size = (SIZE[1], SIZE[0])
        Image.new("RGB", size).save(folder / "images" / f"COCO_train2014_{number:012}.jpg")
    shapes = [
        (1, CAT, 0, [polygon(0, 0, 4, 4)]),
        (1, CAT, 0, text_counts(square(6, 0, 8, 4))),
        (1, CAT, 1, counts(square(3, 0, 12, 2))),
        (1, DOG, 0, [polygon(0, 6, 4, 10), polygon(2, 8, 8, 12)]),
        (2, DOG, 1, counts(square(0, 0, 5, 5))),
    ]
    annotations = [
        {"id": 100 + index, "image_id": photo, "category_id": kind, "iscrowd": crowd}
        | {"segmentation": shape}
        for index, (photo, kind, crowd, shape) in enumerate(shapes)
    ]
    images = [
        {"id": number, "file_name": f"COCO_train2014_{number:012}.jpg"}
        | {"height": SIZE[0], "width": SIZE[1]}
        for number in (1, 2)
    ]
    categories = [{"id": CAT, "name": "cat"}, {"id": DOG, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(content))
