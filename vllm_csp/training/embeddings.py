"""SAM's image embeddings of all training pictures, computed once and kept on disk."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

from vllm_csp.images import sam_resize
from vllm_csp.sam.sam import Sam

SHAPE = (256, 64, 64)
VALUES = SHAPE[0] * SHAPE[1] * SHAPE[2]


class EmbeddingFile:
    """Embeddings bf16 [256, 64, 64] by name, 2 MiB each, appended to one file.

    An interrupted run loses at most the batch it was in.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._data, self._names = folder / "embeddings.bf16", folder / "names.jsonl"
        self.places: dict[str, int] = {}
        if self._names.exists():
            lines = self._names.read_text().splitlines()
            self.places = {json.loads(line): place for place, line in enumerate(lines)}

    def append(self, names: Sequence[str], embeddings: Tensor) -> None:
        """Add a batch [B, 256, 64, 64]."""
        rows = embeddings.to(torch.bfloat16).contiguous().view(torch.int16).cpu().numpy()
        with self._data.open("ab") as file:
            file.truncate(len(self.places) * VALUES * 2)
            file.seek(0, 2)
            file.write(rows.tobytes())
        with self._names.open("a") as file:
            file.writelines(json.dumps(name) + "\n" for name in names)
        for name in names:
            self.places[name] = len(self.places)

    def read(self, names: Sequence[str]) -> Tensor:
        """Embeddings bf16 [B, 256, 64, 64] of `names`."""
        stored = np.memmap(self._data, np.int16, "r", shape=(len(self.places), *SHAPE))
        rows = np.stack([stored[self.places[name]] for name in names])
        return torch.from_numpy(rows).view(torch.bfloat16)


@torch.inference_mode()
def embed(
    sam: Sam,
    pictures: Iterable[tuple[str, Image.Image]],
    count: int,
    file: EmbeddingFile,
    batch: int = 2,
) -> None:
    """Append the embeddings of `count` named pictures."""
    names: list[str] = []
    pixels: list[Tensor] = []
    for number, (name, image) in enumerate(track(pictures, "SAM embeddings", count), 1):
        names.append(name)
        pixels.append(torch.from_numpy(sam_resize(image)))
        if len(names) == batch or number == count:
            file.append(names, sam.encode(sam.preprocess(pixels)))
            names, pixels = [], []
