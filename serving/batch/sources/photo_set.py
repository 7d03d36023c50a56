"""Photos of a folder or a pattern, each asked the same questions."""

from __future__ import annotations

import fnmatch
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vllm_csp.serving.batch.row import Rejected, Row, Subject
from vllm_csp.serving.batch.sources.source import Asking, ImageIds

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"}
)


@dataclass(frozen=True)
class PhotoSet:
    """place: a folder, with the folders in it, a photo, or a pattern such as `photos/**/*.jpg`.

    A row's id is the photo's path within the folder, `#` and the number of the question from 0; its
    category is the question.
    """

    place: str
    questions: Sequence[str]
    asking: Asking
    image_ids: ClassVar[ImageIds] = "none"

    def rows(self) -> Iterator[Row | Rejected]:
        """All questions about one photo, then the next photo."""
        folder = Path(self.place) if Path(self.place).is_dir() else Path()
        number = 0
        for photo in self._photos():
            for index, question in enumerate(self.questions):
                subject = Subject(photo, question, None, index + 1, question)
                yield self.asking.row(f"{photo}#{index}", number, subject, folder.resolve())
                number += 1

    def count(self) -> int:
        """Photos times questions."""
        return sum(1 for _ in self._photos()) * len(self.questions)

    def _photos(self) -> Iterator[str]:
        """Paths within the folder, or as the pattern gives them."""
        if Path(self.place).is_dir():
            yield from photos_in(Path(self.place))
            return
        pattern = self.place
        found = [pattern] if Path(pattern).is_file() else glob.iglob(pattern, recursive=True)
        yield from (path for path in sorted(found) if is_photo(path))


def finds_masks(place: Path, masks: Path) -> bool:
    """Whether a folder or a pattern takes in `0000/NAME.png` within a folder of masks."""
    within, pattern = masks.resolve() / "0000", place.resolve()
    if place.is_dir():
        return within.is_relative_to(pattern)
    if pattern.suffix != ".png" and not glob.has_magic(pattern.suffix or "*"):
        return False
    folders = pattern.parts if pattern.name == "**" else pattern.parts[:-1]
    return _stands_for(folders, within.parts)


def _stands_for(pattern: tuple[str, ...], folders: tuple[str, ...]) -> bool:
    """Whether a pattern of folders within each other means these."""
    if not pattern:
        return not folders
    if pattern[0] == "**":
        places = range(len(folders) + 1)
        return any(_stands_for(pattern[1:], folders[place:]) for place in places)
    return (
        bool(folders)
        and fnmatch.fnmatchcase(folders[0], pattern[0])
        and _stands_for(pattern[1:], folders[1:])
    )


def photos_in(folder: Path) -> Iterator[str]:
    """Photos of a folder and those in it, as sorted paths within it; hidden ones are left out."""
    for current, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if is_photo(name) and not name.startswith("."):
                yield Path(current, name).relative_to(folder).as_posix()


def is_photo(name: str) -> bool:
    """Whether a file name ends like that of an image the server reads."""
    return os.path.splitext(name)[1].lower() in SUFFIXES
