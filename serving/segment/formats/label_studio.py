"""Brush annotations of Label Studio, whose run-length encoding is not COCO's."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from vllm_csp.serving.segment.formats.labelled import LabelledMask

WORD_BITS = 8
LENGTH_BITS = (3, 4, 8, 16)
"""Widths that a run's length may have; each run names one of the four."""


def to_label_studio(
    masks: list[LabelledMask],
    from_name: str = "tag",
    to_name: str = "image",
    labels: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The `result` of a prediction or annotation, one brush stroke per mask.

    from_name, to_name: names of the `BrushLabels` and `Image` tags in the labelling interface.
    labels: question to label; default: the question itself.
    """
    return [
        {
            "id": f"mask-{number}",
            "type": "brushlabels",
            "from_name": from_name,
            "to_name": to_name,
            "original_width": mask.size[1],
            "original_height": mask.size[0],
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": brush_rle(mask.to_numpy()),
                "brushlabels": [label if labels is None else labels[label]],
            },
            "score": mask.score,
        }
        for number, (label, mask) in enumerate(masks)
    ]


def brush_rle(mask: npt.NDArray[np.bool_]) -> list[int]:
    """A mask [height, width] as the bytes of Label Studio's brush encoding.

    What is encoded are RGBA bytes, row by row, all four of a pixel alike: 255 inside, 0 outside.
    Bits, most significant first: 32 number of bytes, 5 word width - 1, four times 4 length
    width - 1, then runs of equal bytes: a set bit, 2 bits which length width, the length - 1, the
    byte. Zeros fill the last byte.
    Source: the format of the package rle-pack of thi.ng/umbrella, which Label Studio uses.
    """
    flat = mask.ravel()
    header = f"{4 * flat.size:032b}{WORD_BITS - 1:05b}"
    header += "".join(f"{bits - 1:04b}" for bits in LENGTH_BITS)
    edges = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate([[0], edges, [flat.size]])
    runs = (
        _run(4 * int(end - start), 255 if flat[start] else 0)
        for start, end in itertools.pairwise(starts)
    )
    bits = np.frombuffer((header + "".join(runs)).encode("ascii"), dtype=np.uint8) - ord("0")
    return np.packbits(bits).tolist()


def _run(length: int, value: int) -> str:
    longest = 1 << LENGTH_BITS[-1]
    pieces = [longest] * (length // longest)
    if rest := length % longest:
        pieces.append(rest)
    return "".join(_piece(piece, value) for piece in pieces)


def _piece(length: int, value: int) -> str:
    kind, bits = next((kind, bits) for kind, bits in enumerate(LENGTH_BITS) if length <= 1 << bits)
    return f"1{kind:02b}{length - 1:0{bits}b}{value:0{WORD_BITS}b}"
