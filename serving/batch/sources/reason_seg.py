"""A folder in the layout of ReasonSeg: beside each photo a JSON file with its questions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vllm_csp.datasets.item import LONG_QUESTION, SHORT_QUESTION
from vllm_csp.datasets.reasonseg import read_labelme
from vllm_csp.serving.batch.row import Rejected, Row, Subject
from vllm_csp.serving.batch.sources.photo_set import photos_in
from vllm_csp.serving.batch.sources.source import Asking, ImageIds


@dataclass(frozen=True)
class ReasonSegFolder:
    """Every `text` of `x.json` is asked about `x.jpg`, in the words that LISA's evaluation uses.

    A row's id is the photo's path without its suffix, `#` and the number of the text from 0.
    Upstream: LISA `utils/dataset.py`, `ValDataset`.
    """

    folder: Path
    asking: Asking
    image_ids: ClassVar[ImageIds] = "none"

    def rows(self) -> Iterator[Row | Rejected]:
        """All texts of a photo, then the next; a photo without readable ones is rejected."""
        number = 0
        for photo in photos_in(self.folder):
            name = str(Path(photo).with_suffix(""))
            try:
                questions = read_questions((self.folder / photo).with_suffix(".json"))
            except (OSError, ValueError, RecursionError) as error:
                yield Rejected(number, "no_question", f"{photo}: {error}", f"{name}#0")
                number += 1
                continue
            for index, question in enumerate(questions):
                subject = Subject(photo, question)
                folder = self.folder.resolve()
                yield self.asking.row(f"{name}#{index}", number, subject, folder)
                number += 1

    def count(self) -> int:
        """Texts of all photos."""
        return sum(1 for _ in self.rows())


def is_reason_seg(folder: Path) -> bool:
    """Whether a folder's first photo has questions beside it."""
    photo = next(photos_in(folder), None)
    if photo is None:
        return False
    try:
        return bool(read_questions((folder / photo).with_suffix(".json")))
    except (OSError, ValueError, RecursionError):
        return False


def read_questions(file: Path) -> list[str]:
    """The questions of a ReasonSeg JSON file. Raises `ValueError` when it is another file."""
    content = read_labelme(file)
    texts = content.get("text")
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts) or not texts:
        raise ValueError(f"{file.name} has no list `text`, as files of ReasonSeg have")
    template = LONG_QUESTION if content.get("is_sentence") else SHORT_QUESTION
    return [template.format(one.strip()) for one in texts]
