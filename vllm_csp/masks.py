"""Masks as they leave the engine: COCO run-length encoding or PNG, with box and area."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as coco

from vllm_csp.images import decode_image

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
    """The boolean array [height, width] of a JSON mask, whichever format it has.

    Raises `ValueError` for counts or a PNG that are none, or not of the mask's size.
    """
    height, width = mask["size"]
    if mask.get("png"):
        data = base64.b64decode(mask["png"].partition(",")[2])
        picture = decode_image(data)
        if picture.size != (width, height):
            raise ValueError(f"the PNG of a mask of {width} x {height} has {picture.size} pixels")
        return np.asarray(picture.convert("1"))
    return decode_counts(mask["counts"], height, width)


def unpack_mask(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The boolean array [height, width] of the engine's packed bits (`sam.postprocess.pack_bits`).

    It is column-major in memory, as pycocotools wants it.
    Raises `ValueError` when the length does not fit the size, (height, width).
    """
    height, width = size
    if len(data) != -(-height * width // 8):
        raise ValueError(f"{len(data)} bytes do not hold a mask of {height} x {width} pixels")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8), count=height * width)
    return bits.astype(np.bool_).reshape(width, height).T


def decode_counts(counts: str | bytes, height: int, width: int) -> np.ndarray:
    """The boolean array [height, width] of COCO's compressed run lengths.

    `pycocotools.mask.decode` writes outside its memory for counts that do not fit the size; a mask
    may come from a file or a server that is not to be trusted.
    Raises `ValueError` for such.
    """
    try:
        signs = counts.encode("ascii") if isinstance(counts, str) else counts
    except UnicodeEncodeError as error:
        raise ValueError("run lengths are ASCII") from error
    return decode_runs(
        _run_lengths(np.frombuffer(signs, np.uint8).astype(np.int64) - 48), height, width
    )


def decode_runs(runs: npt.NDArray[np.int64], height: int, width: int) -> np.ndarray:
    """The boolean array [height, width] of run lengths, of which the first is of pixels outside.

    Raises `ValueError` if they are not those of such a mask.
    """
    if min(height, width) < 0 or (runs < 0).any() or _total(runs) != height * width:
        raise ValueError(f"the run lengths are not those of a mask of {width} x {height}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(width, height).T


def _total(runs: npt.NDArray[np.int64]) -> int:
    # Runs of more than 2^31 pixels, whose sum might overflow, are none.
    return int(runs.sum()) if not len(runs) or runs.max() < 1 << 31 else -1


def _run_lengths(groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Run lengths of 6-bit groups: 5 bits each, the lowest first, the highest bit for "more".

    From the fourth on, each is a difference to the last but one.
    """
    if not len(groups):
        return groups
    if groups.min() < 0 or groups.max() > 63 or groups[-1] & 32:
        raise ValueError("the run lengths are cut off or have a sign that is none")
    ends = np.flatnonzero((groups & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise ValueError("a run length is too long")
    place = np.arange(len(groups)) - np.repeat(starts, lengths)
    numbers = np.add.reduceat((groups & 31) << (5 * place), starts)
    numbers -= np.where(groups[ends] & 16, 1 << (5 * lengths), 0)
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers


def coco_rle(mask: dict[str, Any]) -> dict[str, Any]:
    """COCO's `{"size", "counts"}` of a JSON mask, whichever format it has.

    Raises: ValueError as `decode_mask` does.
    """
    counts = mask.get("counts")
    if not counts:
        counts = encode_mask(decode_mask(mask), mask["score"], mask["seg_index"], "rle")["counts"]
    return {"size": list(mask["size"]), "counts": counts}


def write_png(mask: np.ndarray, target: Path | BinaryIO) -> None:
    """A boolean mask as a PNG of one bit per pixel."""
    Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(target, "PNG")


def png_data_url(mask: np.ndarray) -> str:
    """A 1-bit PNG of a boolean mask as a data URL."""
    buffer = io.BytesIO()
    write_png(mask, buffer)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
