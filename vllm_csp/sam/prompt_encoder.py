"""SAM's prompt encoder as LISA uses it: one text embedding per mask, no points, boxes or masks."""

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor

from vllm_csp.sam.geometry import SamGeometry
from vllm_csp.sam.upstream import PositionEmbeddingRandom
from vllm_csp.sam.upstream import PromptEncoder as UpstreamPromptEncoder

MASK_PROMPT_CHANNELS = 16


class DensePositionEncoding(PositionEmbeddingRandom):
    """Random Fourier features of the embedding grid, in the dtype of their matrix.

    Upstream computes them in fp32; LISA's copy computes them in the dtype the model was cast to,
    and was trained so: in bf16 single values differ by up to 0.16.
    Upstream: LISA `model/segment_anything/modeling/prompt_encoder.py`.
    """

    def forward(self, size: tuple[int, int]) -> Tensor:
        """Encode the cell centres of a grid.

        `size`: (h, w) in cells. Returns: [C, h, w], dtype and device of the matrix.
        """
        height, width = size
        matrix = self.positional_encoding_gaussian_matrix
        cells = torch.ones(size, dtype=matrix.dtype, device=matrix.device)
        rows = (cells.cumsum(dim=0) - 0.5) / height
        columns = (cells.cumsum(dim=1) - 0.5) / width
        phase = 2 * math.pi * ((2 * torch.stack((columns, rows), dim=-1) - 1) @ matrix)
        return torch.cat((phase.sin(), phase.cos()), dim=-1).permute(2, 0, 1)


class PromptEncoder(UpstreamPromptEncoder):
    """Text embeddings to the prompts of the mask decoder.

    Point, box and mask weights exist only so that checkpoints load whole.
    Upstream: LISA `model/segment_anything/modeling/prompt_encoder.py`.
    """

    def __init__(self, geometry: SamGeometry) -> None:
        super().__init__(
            embed_dim=geometry.out_channels,
            image_embedding_size=(geometry.grid_size, geometry.grid_size),
            input_image_size=(geometry.image_size, geometry.image_size),
            mask_in_chans=MASK_PROMPT_CHANNELS,
        )
        self.pe_layer = DensePositionEncoding(geometry.out_channels // 2)
        self._dense_pe: Tensor | None = None

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Make the prompts of one mask per query.

        `queries`: [Q, C], any float dtype.
        Returns: sparse prompts [Q, 1, C] and the dense prompt [1, C, 1, 1] that all cells of all
        rows share, both in the dtype of the weights.
        """
        no_mask = self.no_mask_embed.weight
        return queries.to(no_mask.dtype).unsqueeze(1), no_mask.reshape(1, -1, 1, 1)

    def get_dense_pe(self) -> Tensor:
        """Positional encoding of the image embedding, computed once per set of weights.

        Returns: [1, C, h, w], dtype and device of the weights.
        """
        if self._dense_pe is None:
            self._dense_pe = self.pe_layer(self.image_embedding_size).unsqueeze(0)
        return self._dense_pe

    def forget_dense_pe(self) -> None:
        """Drop the kept positional encoding; call after changing the weights in place."""
        self._dense_pe = None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # Casts and moves change what the encoding must be.
        self.forget_dense_pe()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
