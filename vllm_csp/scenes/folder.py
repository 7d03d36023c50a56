"""Scenes as a folder of PNGs and one `scenes.json`, for evaluation and for other programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from vllm_csp.scenes.painter import Mask
from vllm_csp.scenes.sample import SceneSample

INDEX = "scenes.json"


def write_scenes(folder: Path, samples: Sequence[tuple[str, SceneSample]]) -> Path:
    """Write each named sample's picture as NAME.png and all questions into `scenes.json`.

    `scenes.json` is a list of questions: image, kind, text, answer and masks, each mask as COCO
    run-length encoding (`size` [height, width], `counts`). Returns its path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    questions: list[dict[str, Any]] = []
    for name, sample in samples:
        file = f"{name}.png"
        sample.image.save(folder / file)
        questions += [
            {
                "image": file,
                "kind": question.kind,
                "text": question.text,
                "answer": question.answer,
                "masks": [_encode(mask) for mask in question.masks],
            }
            for question in sample.questions
        ]
    index = folder / INDEX
    index.write_text(json.dumps(questions, indent=1) + "\n")
    return index


def _encode(mask: Mask) -> dict[str, Any]:
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode("ascii")}
