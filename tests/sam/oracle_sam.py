"""SAM with the weights of the oracle's checkpoint."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tests.oracle import Precision, Recording
from vllm_csp.images import sam_resize, to_rgb
from vllm_csp.sam.encoder_kind import read_geometry
from vllm_csp.sam.sam import Sam

PREFIX = "model.visual_model."
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class OracleSam:
    """Keeps what several tests compute alike."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "checkpoint" / "pytorch_model.bin"
        self.sam = cache(self._sam)
        self._embedding = cache(self._embedded)

    def weights(self) -> dict[str, Tensor]:
        """SAM's weights, fp32, named as `Sam` names them."""
        checkpoint = torch.load(self._file, weights_only=True, mmap=True)
        return {k[len(PREFIX) :]: v for k, v in checkpoint.items() if k.startswith(PREFIX)}

    def embedding(self, recording: Recording, precision: Precision) -> Tensor:
        """Of a recording's picture, [1, 256, 64, 64]; computed once per picture."""
        return self._embedding(recording.image_file, precision)

    def _sam(self, precision: Precision) -> Sam:
        weights = self.weights()
        shapes = {name: tuple(weight.shape) for name, weight in weights.items()}
        sam = Sam(read_geometry(shapes)).to(DTYPES[precision]).eval()
        sam.load_weights(weights.items())
        sam.require_complete()
        return sam

    def _embedded(self, file: Path, precision: Precision) -> Tensor:
        sam = self.sam(precision)
        with torch.no_grad():
            return sam.encode(sam.preprocess([pixels(file)]))


def pixels(file: Path) -> Tensor:
    """A picture resized for SAM, uint8 [h, w, 3]."""
    return torch.from_numpy(sam_resize(to_rgb(Image.open(file))))
