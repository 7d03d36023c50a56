"""A file that holds another image encoder for SAM."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from vllm_csp.models.weights import file_shapes, weight_file
from vllm_csp.sam.encoder_kind import TINY_VIT
from vllm_csp.sam.geometry import SamGeometry

KINDS = {"mobile_sam": TINY_VIT}


@dataclass(frozen=True)
class EncoderFile:
    """Where it is, and the sizes that its tensors have."""

    path: Path
    geometry: SamGeometry

    @classmethod
    def find(cls, kind: str, place: str, download_dir: str | None = None) -> Self:
        """Look at the tensors of a file without loading them.

        `kind`: a key of `KINDS`. `place`: the file, a folder with one file of weights, or a hub id.
        Raises: ValueError naming the place or file when it does not hold such an encoder.
        """
        path = weight_file(place, download_dir)
        try:
            return cls(path, KINDS[kind].geometry.from_shapes(file_shapes(path)))
        except ValueError as error:
            raise ValueError(f"{path} holds no image encoder of kind {kind}: {error}") from error

    def require_same_embedding(self, own: SamGeometry) -> None:
        """Check that a mask decoder made for `own` can read what this encoder writes.

        Raises: ValueError naming both sizes.
        """
        if _embedding(own) != _embedding(self.geometry):
            raise ValueError(
                f"the image encoder in {self.path} makes embeddings of "
                f"{_embedding(self.geometry)}, but this checkpoint's mask decoder was made for "
                f"{_embedding(own)}"
            )


def _embedding(geometry: SamGeometry) -> str:
    grid = geometry.grid_size
    return f"{geometry.out_channels} x {grid} x {grid} from {geometry.image_size} pixels"
