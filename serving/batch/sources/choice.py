"""Which kind of input a path is."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from glob import has_magic
from pathlib import Path

from vllm_csp.serving.batch.sources.coco_set import CocoSet
from vllm_csp.serving.batch.sources.photo_set import PhotoSet, is_photo
from vllm_csp.serving.batch.sources.reason_seg import ReasonSegFolder, is_reason_seg
from vllm_csp.serving.batch.sources.request_file import RequestFile
from vllm_csp.serving.batch.sources.source import Asking, Source, UsageError


class InputKind(StrEnum):
    """What the first argument of `vllm-csp batch` is."""

    AUTO = "auto"
    JSONL = "jsonl"
    PHOTOS = "photos"
    COCO = "coco"
    REASONSEG = "reasonseg"


def open_source(
    place: str,
    kind: InputKind,
    asking: Asking,
    *,
    questions: Sequence[str] = (),
    images: Path | None = None,
) -> Source:
    """The rows of an input. Raises `UsageError` when it is absent or lacks questions."""
    path = Path(place)
    if kind == InputKind.AUTO:
        kind = _guess(place, has_questions=bool(questions))
    if kind == InputKind.PHOTOS:
        if not questions:
            raise UsageError(f"{place} has no questions: add --question or --questions FILE")
        return PhotoSet(place, questions, asking)
    if not path.exists():
        raise UsageError(f"{place} does not exist")
    if kind == InputKind.COCO:
        return CocoSet(path, images or _coco_images(path), questions, asking)
    if questions:
        raise UsageError(f"{place} has its own questions: leave --question out, or say --input")
    if kind == InputKind.REASONSEG:
        return ReasonSegFolder(path, asking)
    return RequestFile(path, (images or path.parent).resolve(), asking)


def _guess(place: str, *, has_questions: bool) -> InputKind:
    path = Path(place)
    if path.is_dir():
        found = not has_questions and is_reason_seg(path)
        return InputKind.REASONSEG if found else InputKind.PHOTOS
    if path.suffix in (".jsonl", ".ndjson"):
        return InputKind.JSONL
    if path.suffix == ".json":
        return InputKind.COCO
    if is_photo(place) or has_magic(place):
        return InputKind.PHOTOS
    raise UsageError(
        f"cannot tell what {place} is: a folder or pattern of photos, .jsonl of requests, or .json "
        "of COCO; say it with --input"
    )


def _coco_images(path: Path) -> Path:
    """Where the images of a COCO file are by custom: in `images` beside it, or beside it."""
    beside = path.parent / "images"
    return beside if beside.is_dir() else path.parent
