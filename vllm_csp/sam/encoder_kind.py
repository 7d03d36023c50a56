"""The kinds of image encoder that a SAM may have, told apart by the names of their tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from vllm_csp.sam.geometry import SamGeometry, Shapes
from vllm_csp.sam.tiny_vit import TinyVitEncoder
from vllm_csp.sam.tiny_vit_geometry import TinyVitGeometry
from vllm_csp.sam.vit import VitEncoder
from vllm_csp.sam.vit_geometry import VitGeometry


@dataclass(frozen=True)
class EncoderKind:
    """One kind: `marker` begins tensor names that only this kind has.

    `build` takes a geometry of the class `geometry`; what it makes takes pixels [B, 3, S, S] and
    the extent beyond which they are padding, if known, to embeddings [B, C, g, g] with the sizes
    of that geometry, and has its first layers as a `LocalStack` named `local`.
    """

    marker: str
    geometry: type[SamGeometry]
    build: Callable[[Any], nn.Module]


VIT = EncoderKind("image_encoder.blocks.", VitGeometry, VitEncoder)
TINY_VIT = EncoderKind("image_encoder.layers.", TinyVitGeometry, TinyVitEncoder)
KINDS = (VIT, TINY_VIT)


def read_geometry(shapes: Shapes) -> SamGeometry:
    """The geometry of a SAM, of whichever kind its tensors are.

    `shapes`: see `SamGeometry.from_shapes`.
    Raises: ValueError when no image encoder is there, or naming the tensor that does not fit.
    """
    for kind in KINDS:
        if any(name.startswith(kind.marker) for name in shapes):
            return kind.geometry.from_shapes(shapes)
    known = ", ".join(f"{kind.marker}*" for kind in KINDS)
    raise ValueError(f"SAM weights lack an image encoder: none of {known}")


def build_encoder(geometry: SamGeometry) -> nn.Module:
    """The image encoder of a geometry, its weights not loaded."""
    kind = next(kind for kind in KINDS if isinstance(geometry, kind.geometry))
    return kind.build(geometry)
