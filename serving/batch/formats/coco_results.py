"""COCO's results: a list of masks, for `pycocotools.coco.COCO.loadRes` beside the instances."""

from __future__ import annotations

import json
from pathlib import Path

from vllm_csp.durable import whole_file
from vllm_csp.masks import coco_rle
from vllm_csp.serving.batch.formats.answers import answers
from vllm_csp.serving.batch.sources.source import UsageError

ONLY_CATEGORY = 1
"""Of rows that name none."""


def write_coco_results(journal: Path, output: Path) -> None:
    """One entry per mask.

    Raises `UsageError` for a row whose image has no id.
    """
    # No `bbox` and `area`: with a box, `loadRes` takes the entry for a detection and sets the area
    # to that of the box; without, it computes both from the mask.
    with whole_file(output) as partial, partial.open("w") as file:
        separator = "["
        for line, masks in answers(journal):
            subject = line["input"]
            if "image_id" not in subject:
                raise UsageError(
                    f"row {line['custom_id']!r} has no image_id, which COCO results need: give the "
                    "rows one, or take --format coco. Nothing is lost: run again with --resume"
                )
            for mask in masks:
                entry = {
                    "image_id": subject["image_id"],
                    "category_id": subject.get("category_id", ONLY_CATEGORY),
                    "segmentation": coco_rle(mask),
                    "score": mask["score"],
                    "custom_id": line["custom_id"],
                }
                file.write(f"{separator}\n{json.dumps(entry)}")
                separator = ","
        file.write("[]\n" if separator == "[" else "\n]\n")
