"""Data sets by format, told from what lies in the folder."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from vllm_csp.datasets.coco import read_coco
from vllm_csp.datasets.item import SHORT_QUESTION, DatasetError, Photo
from vllm_csp.datasets.reasonseg import read_reasonseg
from vllm_csp.datasets.refcoco import read_refcoco, refs_file
from vllm_csp.datasets.scenes import read_scenes
from vllm_csp.datasets.semantic import read_semantic


class Format(StrEnum):
    """What a folder holds."""

    AUTO = "auto"
    REASONSEG = "reasonseg"
    REFCOCO = "refcoco"
    COCO = "coco"
    SEMANTIC = "semantic"
    SCENES = "scenes"


@dataclass(frozen=True)
class Source:
    """Which data to read.

    images: folder of the photos where they lie elsewhere (COCO, refCOCO). template: question for a
    class name, with `{}` in its place; least_share: of the photo that a class must cover to be
    asked for (both: COCO, semantic). only: names or stems of photos to take.
    limit: so many photos at most, drawn with `seed`.
    """

    folder: Path
    format: Format = Format.AUTO
    split: str | None = None
    images: Path | None = None
    template: str = SHORT_QUESTION
    least_share: float = 0.0
    only: Collection[str] | None = None
    limit: int | None = None
    seed: int = 0


def read_photos(source: Source) -> list[Photo]:
    """The chosen photos, in the data set's order. Raises `DatasetError` with what to do."""
    if "{}" not in source.template:
        raise DatasetError(f"template {source.template!r} has no {{}} for the class name")
    chosen = source.format if source.format != Format.AUTO else detect_format(source)
    photos = _READERS[chosen](source)
    if source.only is not None:
        photos = [one for one in photos if {one.path.name, one.path.stem} & set(source.only)]
    if not photos:
        raise DatasetError(f"no photo of {source.folder} is left to ask about")
    if source.limit is not None and source.limit < len(photos):
        drawn = random.Random(source.seed).sample(range(len(photos)), source.limit)
        photos = [photos[index] for index in sorted(drawn)]
    return photos


def read_names(file: Path) -> list[str]:
    """Names or stems of photos, one a line."""
    return [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]


def detect_format(source: Source) -> Format:
    """The format of the folder. Raises `DatasetError` when it looks like none."""
    folder = source.folder
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder")
    part = folder / (source.split or "")
    if (part / "scenes.json").is_file():
        return Format.SCENES
    if (folder / "instances.json").is_file():
        return Format.REFCOCO if refs_file(folder) else Format.COCO
    if (folder / "labels.json").is_file():
        return Format.SEMANTIC
    if any(part.glob("*.json")) or any(folder.glob("*/*.json")):
        return Format.REASONSEG
    raise DatasetError(
        f"{folder} looks like no known data set: scenes have scenes.json, COCO instances.json, "
        "refCOCO also refs*.p, semantic folders labels.json, ReasonSeg x.jpg beside x.json; "
        "--format says which one it is meant to be"
    )


def _coco(source: Source) -> list[Photo]:
    if source.split:
        raise DatasetError("a COCO folder has no splits: name photos with --only")
    return read_coco(source.folder, source.images, source.template, source.least_share)


_READERS: dict[Format, Callable[[Source], list[Photo]]] = {
    Format.REASONSEG: lambda source: read_reasonseg(source.folder, source.split),
    Format.REFCOCO: lambda source: read_refcoco(source.folder, source.split, source.images),
    Format.COCO: _coco,
    Format.SEMANTIC: lambda source: read_semantic(
        source.folder, source.split, source.template, source.least_share
    ),
    Format.SCENES: lambda source: read_scenes(source.folder, source.split),
}
