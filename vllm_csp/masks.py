"""Masks as they leave the engine: COCO run-length encoding or PNG, with box and area."""

from __future__ import annotations

import base64
import io
from typing import Any, Literal

import numpy as np
from PIL import Image
from pycocotools import mask as coco

MaskFormat = Literal["rle", "png"]


def encode_mask(
    mask: np.ndarray, score: float, seg_index: int, mask_format: MaskFormat
) -> dict[str, Any]:
    """A boolean mask [height, width] as a JSON object; see `serving.segment.response.Mask`."""
    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    picture: dict[str, Any]
    if mask_format == "rle":
        picture = {"counts": rle["counts"].decode("ascii")}
    else:
        picture = {"png": png_data_url(mask)}
    return {
        "size": [int(mask.shape[0]), int(mask.shape[1])],
        **picture,
        "bbox": [int(value) for value in coco.toBbox(rle)],
        "area": int(coco.area(rle)),
        "score": round(float(score), 6),
        "seg_index": seg_index,
    }


def decode_mask(mask: dict[str, Any]) -> np.ndarray:
    """The boolean array [height, width] of a JSON mask, whichever format it has."""
    if mask.get("png"):
        data = base64.b64decode(mask["png"].partition(",")[2])
        return np.asarray(Image.open(io.BytesIO(data))).astype(bool)
    counts = mask["counts"].encode("ascii")
    return coco.decode({"size": mask["size"], "counts": counts}).astype(bool)


def png_data_url(mask: np.ndarray) -> str:
    """A 1-bit PNG of a boolean mask as a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
