"""refCOCO, refCOCO+ and refCOCOg: expressions in `refs`, masks in COCO's `instances.json`.

Source of the layout: github.com/lichengunc/refer, as LISA's `ValDataset` reads it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vllm_csp.datasets.annotations import Annotations, find_image
from vllm_csp.datasets.item import SHORT_QUESTION, DatasetError, Item, Photo, Raster
from vllm_csp.datasets.unpickler import read_plain_pickle

Ref = dict[str, Any]


def read_refcoco(folder: Path, split: str | None = None, images: Path | None = None) -> list[Photo]:
    """Photos of a split (`val`, `testA`, ...) with a question for every expression.

    The folder holds `instances.json` and one file `refs*.p` (as published) or `refs*.json`. images:
    where COCO's photos are, if not in the folder or its `images`. Raises `DatasetError` when
    something is missing.
    """
    refs = _refs(folder, split)
    annotations = Annotations(folder / "instances.json")
    by_image: dict[Any, list[Ref]] = defaultdict(list)
    for ref in refs:
        by_image[ref["image_id"]].append(ref)
    photos = []
    for number, mine in sorted(by_image.items()):
        path = find_image(images or folder, annotations.images[number]["file_name"])
        photos.append(Photo(path, partial(_items, annotations, mine)))
    return photos


def refs_file(folder: Path) -> Path | None:
    """The file of expressions in a folder, if there is one; JSON goes before pickle."""
    found = sorted(folder.glob("refs*.json")) + sorted(folder.glob("refs*.p"))
    return found[0] if found else None


def _refs(folder: Path, split: str | None) -> list[Ref]:
    file = refs_file(folder)
    if file is None:
        raise DatasetError(f"{folder} has no file refs*.p or refs*.json")
    try:
        is_json = file.suffix == ".json"
        refs = json.loads(file.read_text()) if is_json else read_plain_pickle(file)
        splits = sorted({ref["split"] for ref in refs})
        chosen = [ref for ref in refs if ref["split"] == split]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise DatasetError(f"{file} is no list of refCOCO expressions: {error!r}") from error
    if not chosen:
        raise DatasetError(f"{file} has no split {split!r}; choose one of {', '.join(splits)}")
    return chosen


def _items(annotations: Annotations, refs: list[Ref]) -> list[Item]:
    return [
        Item(
            key=f"{ref['ref_id']}/{number}",
            question=SHORT_QUESTION.format(sentence["sent"].strip().lower()),
            kind=annotations.names[annotations.annotations[ref["ann_id"]]["category_id"]],
            num_masks=1,
            rasters=partial(_rasters, annotations, ref["ann_id"]),
        )
        for ref in refs
        for number, sentence in enumerate(ref["sentences"])
    ]


def _rasters(annotations: Annotations, annotation: Any) -> list[Raster]:
    return [annotations.mask(annotations.annotations[annotation]).astype(np.uint8)]
