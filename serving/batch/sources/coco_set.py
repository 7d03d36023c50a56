"""The images of a COCO instances file, asked about the categories they hold or anything else."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import ijson
import numpy as np
import numpy.typing as npt

from vllm_csp.serving.batch.row import Rejected, Row, Subject
from vllm_csp.serving.batch.sources.source import Asking, ImageIds, UsageError

CATEGORY = "{category}"
QUESTION = "Please segment the {category} in this image."


@dataclass(frozen=True)
class CocoSet:
    """Read piece by piece; 16 bytes of memory for each annotation.

    A question with `{category}` in it is asked once for each category that an image is annotated
    with, another one once per image. A row's id is the image's, `-`, the category's (or `q` and the
    number of the question), and with several such questions `-` and its number.
    """

    path: Path
    images: Path
    questions: Sequence[str]
    asking: Asking
    image_ids: ClassVar[ImageIds] = "all"

    def rows(self) -> Iterator[Row | Rejected]:
        """All questions about one image, then the next, in the order of the file."""
        number = 0
        folder = self.images.resolve()
        for image in self._items("images"):
            name = _field(image, "file_name", str, self.path)
            for custom_id, subject in self._subjects(_field(image, "id", int, self.path), name):
                yield self.asking.row(custom_id, number, subject, folder)
                number += 1

    def count(self) -> int:
        """Questions about all images."""
        ids = (_field(image, "id", int, self.path) for image in self._items("images"))
        return sum(sum(1 for _ in self._subjects(one, "")) for one in ids)

    def _subjects(self, image_id: int, name: str) -> Iterator[tuple[str, Subject]]:
        asked = self.questions or [QUESTION]
        several = sum(CATEGORY in question for question in asked) > 1
        for index, question in enumerate(asked):
            if CATEGORY not in question:
                yield f"{image_id}-q{index}", Subject(name, question, image_id, index + 1, question)
                continue
            for category_id in self._categories_of(image_id):
                category = self._names.get(category_id, str(category_id))
                text = question.replace(CATEGORY, category)
                custom_id = f"{image_id}-{category_id}" + (f"-{index}" if several else "")
                yield custom_id, Subject(name, text, image_id, category_id, category)

    def _categories_of(self, image_id: int) -> list[int]:
        pairs = self._pairs
        first, last = np.searchsorted(pairs[:, 0], [image_id, image_id + 1])
        return [int(one) for one in pairs[first:last, 1]]

    @cached_property
    def _pairs(self) -> npt.NDArray[np.int64]:
        """Sorted (image id, category id) of the annotations, each once."""
        flat = array("q")
        for one in self._items("annotations"):
            flat.append(_field(one, "image_id", int, self.path))
            flat.append(_field(one, "category_id", int, self.path))
        pairs = np.frombuffer(flat, np.int64).reshape(-1, 2) if flat else np.empty((0, 2), np.int64)
        return np.unique(pairs, axis=0)

    @cached_property
    def _names(self) -> dict[int, str]:
        return {
            _field(one, "id", int, self.path): _field(one, "name", str, self.path)
            for one in self._items("categories")
        }

    def _items(self, part: str) -> Iterator[dict[str, Any]]:
        with self.path.open("rb") as file:
            try:
                yield from ijson.items(file, f"{part}.item", use_float=True)
            except ijson.JSONError as error:
                raise UsageError(f"{self.path} is no JSON file: {error}") from error


def _field(item: dict[str, Any], name: str, kind: type, path: Path) -> Any:
    value = item.get(name) if isinstance(item, dict) else None
    if not isinstance(value, kind):
        raise UsageError(
            f"{path} is no COCO instances file: an entry has no {name!r}: {item!r:.200}"
        )
    return value
