"""Real photos with class masks: street scenes (CamVid), clothing (CCP), things (COCO)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vllm_csp.datasets import item
from vllm_csp.datasets.annotations import Annotations
from vllm_csp.datasets.coco import read_coco
from vllm_csp.datasets.semantic import class_names, read_semantic
from vllm_csp.training.questions import Mask

MIN_AREA = 0.001
"""Classes that cover less of the photo are not asked for."""

HELD_OUT = 5
"""One photo in so many is held out, where the data set has no split of its own."""

ClassMasks = dict[str, Mask]


@dataclass(frozen=True)
class Photo:
    """A photo as the evaluation reads it, and the classes it may be asked for."""

    source: str
    classes: tuple[str, ...]
    read: item.Photo

    @property
    def path(self) -> Path:
        """The picture's file."""
        return self.read.path

    @property
    def key(self) -> str:
        """Name of the photo among all sources."""
        return f"{self.source}/{self.path.stem}"

    def read_masks(self) -> ClassMasks:
        """Masks [H, W] of the classes that it shows."""
        return {one.kind: one.rasters()[0] for one in self.read.items()}


def photos(assets: Path, split: str) -> list[Photo]:
    """All photos of a split, "train" or "held_out"; no photo is in both."""
    return [*street(assets, split), *clothing(assets, split), *things(assets, split)]


def street(assets: Path, split: str) -> list[Photo]:
    """CamVid in its own split."""
    folder = assets / "camvid"
    part = "train" if split == "train" else "val"
    found = read_semantic(folder, part, least_share=MIN_AREA)
    return [Photo("street", class_names(folder), photo) for photo in found]


def clothing(assets: Path, split: str) -> list[Photo]:
    """Clothing Co-Parsing."""
    folder = assets / "ccp"
    found = read_semantic(folder, least_share=MIN_AREA)
    return [Photo("clothing", class_names(folder), photo) for photo in _of_split(found, split)]


def things(assets: Path, split: str) -> list[Photo]:
    """COCO instances, all of a class in one mask."""
    folder = assets / "coco"
    names = tuple(sorted(Annotations(folder / "instances.json").names.values()))
    found = read_coco(folder, least_share=MIN_AREA)
    return [Photo("things", names, photo) for photo in _of_split(found, split)]


def _of_split(found: Iterable[item.Photo], split: str) -> list[item.Photo]:
    return [photo for photo in found if held_out(photo.path.stem) == (split != "train")]


def held_out(name: str) -> bool:
    """Whether a photo is kept for evaluation, by a hash of its name."""
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0
