"""ReasonSeg: `x.jpg` beside `x.json`, polygons in labelme's form.

Source of the rules: github.com/dvlab-research/LISA, `utils/data_processing.py` and `ValDataset`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vllm_csp.datasets.item import (
    IGNORED,
    LONG_QUESTION,
    SHORT_QUESTION,
    DatasetError,
    Item,
    Photo,
    Raster,
)
from vllm_csp.datasets.polygons import draw_polygon
from vllm_csp.images import to_rgb

SUFFIXES = (".jpg", ".jpeg", ".png")


def read_reasonseg(folder: Path, split: str | None = None) -> list[Photo]:
    """Photos of a folder, or of its subfolder `split`.

    One question each: the first text. Raises `DatasetError` when there are none.
    """
    chosen = folder / split if split else folder
    photos = []
    for image in sorted(path for path in chosen.glob("*") if path.suffix.lower() in SUFFIXES):
        labels = image.with_suffix(".json")
        if labels.is_file():
            photos.append(Photo(image, partial(_items, image, labels)))
    if not photos:
        parts = sorted(one.name for one in folder.iterdir() if any(one.glob("*.json")))
        hint = f"; choose one of its splits: {', '.join(parts)}" if parts and not split else ""
        raise DatasetError(f"{chosen} holds no photo with a labelme file beside it{hint}")
    return photos


def _items(image: Path, labels: Path) -> list[Item]:
    content = read_labelme(labels)
    try:
        text, is_sentence = str(content["text"][0]), bool(content["is_sentence"])
        shapes = content["shapes"]
    except (KeyError, IndexError, TypeError) as error:
        raise DatasetError(
            f"{labels} is no ReasonSeg file: it needs `text` (a list), `is_sentence` and `shapes`"
        ) from error
    template = LONG_QUESTION if is_sentence else SHORT_QUESTION
    return [
        Item(
            key=image.stem,
            question=template.format(text.strip()),
            kind="long" if is_sentence else "short",
            num_masks=1,
            rasters=partial(_rasters, shapes, image),
        )
    ]


def read_labelme(file: Path) -> dict[str, Any]:
    """The JSON of a labelme file; some of ReasonSeg's are in Windows' code page."""
    try:
        content = json.loads(_text(file.read_bytes()))
    except ValueError as error:  # of JSON, or bytes that are no text
        raise DatasetError(f"{file} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{file} holds no JSON object")
    return content


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252")


def _rasters(shapes: Sequence[dict[str, Any]], image: Path) -> list[Raster]:
    # Upright, as the polygons are: LISA's reader turns photos by their EXIF orientation.
    width, height = to_rgb(Image.open(image)).size
    return [draw_shapes(shapes, (height, width))]


def draw_shapes(shapes: Sequence[dict[str, Any]], size: tuple[int, int]) -> Raster:
    """Raster [height, width] of labelme shapes: outlines and insides, the largest area first.

    "flag" shapes are skipped, those with "ignore" in their label become 255, all others 1.
    """
    polygons = [
        (str(shape["label"]).lower(), np.array(shape["points"], dtype=np.int32))
        for shape in shapes
        if str(shape["label"]).lower() != "flag"
    ]
    areas = []
    for _, points in polygons:
        alone = np.zeros(size, np.uint8)
        draw_polygon(alone, points, 1)
        areas.append(int(alone.sum()))
    raster = np.zeros(size, np.uint8)
    for index in np.argsort(areas)[::-1]:
        label, points = polygons[index]
        draw_polygon(raster, points, IGNORED if "ignore" in label else 1)
    return raster
