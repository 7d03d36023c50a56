"""A whole COCO dataset: images, annotations and categories in one file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from vllm_csp.durable import whole_file
from vllm_csp.masks import coco_rle
from vllm_csp.serving.batch.disk_index import DiskIndex
from vllm_csp.serving.batch.formats.answers import answers


class CocoIds:
    """Ids of images and categories: those of the input, and numbers above them for the others.

    The category of a row that names none is its question.
    """

    def __init__(self, journal: Path) -> None:
        self._images = DiskIndex()
        self._categories = DiskIndex()
        self._next_image = self._next_category = 1
        for line, _ in answers(journal):
            subject = line["input"]
            self._next_image = max(self._next_image, subject.get("image_id", 0) + 1)
            self._next_category = max(self._next_category, subject.get("category_id", 0) + 1)

    def image(self, line: dict[str, Any]) -> tuple[int, bool]:
        """The id of a line's image, and whether it has not been asked for before."""
        given = line["input"].get("image_id")
        found = _number(self._images, given, image_name(line), self._next_image)
        self._next_image += given is None and found[1]
        return found

    def category(self, line: dict[str, Any]) -> tuple[int, bool]:
        """The id of a line's category, and whether it has not been asked for before."""
        given = line["input"].get("category_id")
        found = _number(self._categories, given, category_name(line), self._next_category)
        self._next_category += given is None and found[1]
        return found


def image_name(line: dict[str, Any]) -> str:
    """An image within a request goes by the row's id."""
    return str(line["input"].get("image", line["custom_id"]))


def category_name(line: dict[str, Any]) -> str:
    """Category, else question, else a word for a row without either."""
    subject = line["input"]
    return str(subject.get("category") or subject.get("question") or "object")


def write_coco_dataset(journal: Path, output: Path) -> None:
    """Everything that was answered; images without any mask have no size, as nothing tells it."""
    ids = CocoIds(journal)
    with whole_file(output) as partial, partial.open("w") as file:
        file.write('{"info": {"description": "masks of vllm-csp batch"}')
        _write_list(file, "images", _images(journal, ids))
        _write_list(file, "categories", _categories(journal, ids))
        _write_list(file, "annotations", _annotations(journal, ids))
        file.write("}\n")


def _images(journal: Path, ids: CocoIds) -> Iterator[dict[str, Any]]:
    for with_masks in (True, False):
        for line, masks in answers(journal):
            if bool(masks) != with_masks:
                continue
            number, is_new = ids.image(line)
            if is_new:
                height, width = masks[0]["size"] if masks else (None, None)
                size = {"height": height, "width": width} if masks else {}
                yield {"id": number, "file_name": image_name(line), **size}


def _categories(journal: Path, ids: CocoIds) -> Iterator[dict[str, Any]]:
    for line, _ in answers(journal):
        number, is_new = ids.category(line)
        if is_new:
            yield {"id": number, "name": category_name(line)}


def _annotations(journal: Path, ids: CocoIds) -> Iterator[dict[str, Any]]:
    number = 0
    for line, masks in answers(journal):
        for mask in masks:
            number += 1
            yield {
                "id": number,
                "image_id": ids.image(line)[0],
                "category_id": ids.category(line)[0],
                "segmentation": coco_rle(mask),
                "bbox": mask["bbox"],
                "area": mask["area"],
                "iscrowd": 0,
                "score": mask["score"],
                "custom_id": line["custom_id"],
            }


def _write_list(file: TextIO, name: str, entries: Iterable[dict[str, Any]]) -> None:
    file.write(f',\n"{name}": [')
    for number, entry in enumerate(entries):
        file.write(("," if number else "") + "\n" + json.dumps(entry))
    file.write("\n]")


def _number(index: DiskIndex, given: int | None, name: str, free: int) -> tuple[int, bool]:
    if given is not None:
        return given, index.add(f"id {given}", given) is None
    known = index.add(f"name {name}", free)
    return (free, True) if known is None else (known, False)
