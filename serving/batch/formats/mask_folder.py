"""A folder with a black-and-white PNG of each mask, and an index that says what each shows."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

from vllm_csp.durable import whole_file
from vllm_csp.masks import decode_mask, write_png
from vllm_csp.serving.batch.formats.answers import answers

INDEX = "index.jsonl"
PER_FOLDER = 10_000
LONGEST_NAME = 180
"""Characters; with number and suffix it stays below the 255 of common file systems."""


def write_mask_folder(journal: Path, output: Path) -> None:
    """`0000/NAME.0.png` and so on; the index comes last, so where it is, all PNGs are.

    NAME is the row's id, with everything but letters, digits and `_.-~` as %XX. Rows have the same
    folder each time it is written, whichever of them have been answered.
    """
    output.mkdir(exist_ok=True)
    with whole_file(output / INDEX) as partial, partial.open("w") as index:
        for line, masks in answers(journal):
            folder = f"{line['input']['place'] // PER_FOLDER:04d}"
            (output / folder).mkdir(exist_ok=True)
            for count, mask in enumerate(masks):
                file = f"{folder}/{file_name(line['custom_id'])}.{count}.png"
                write_png(decode_mask(mask), output / file)
                index.write(json.dumps({"file": file, **_described(line, mask)}) + "\n")
        # Before the index gets its name, and once instead of for each PNG.
        os.sync()


def file_name(custom_id: str) -> str:
    """A name that no other id has."""
    name = quote(custom_id, safe="", errors="surrogatepass")
    # Dots alone, or at the start, mean something to file systems.
    name = "%2E" + name[1:] if name.startswith(".") else name
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.blake2b(name.encode("ascii"), digest_size=8).hexdigest()
    return f"{name[: LONGEST_NAME - 17]}-{digest}"


def _described(line: dict[str, Any], mask: dict[str, Any]) -> dict[str, Any]:
    kept = ("size", "bbox", "area", "score", "seg_index")
    return {
        "custom_id": line["custom_id"],
        **{name: value for name, value in line["input"].items() if name != "place"},
        **{name: mask[name] for name in kept},
    }
