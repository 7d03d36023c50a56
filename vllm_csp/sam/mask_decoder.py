"""SAM's mask decoder, batched over queries of different images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vllm_csp.sam.fused_gelu import linear_gelu
from vllm_csp.sam.geometry import SamGeometry
from vllm_csp.sam.two_way import two_way
from vllm_csp.sam.upstream import MaskDecoder as UpstreamMaskDecoder
from vllm_csp.sam.upstream import TwoWayTransformer

# Fixed by SAM's `build_sam.py` for every encoder size; no tensor shape shows the number of heads.
DECODER_DEPTH = 2
DECODER_HEADS = 8
DECODER_MLP_DIM = 2048
MULTIMASK_OUTPUTS = 3
IOU_HEAD_DEPTH = 3
IOU_HEAD_HIDDEN_DIM = 256

# Behind that of the predicted IoU, which LISA never trained and nobody reads.
MASK_TOKEN = 1

# Rows at once: a GPU wants work for all of it, a CPU's cache holds little.
GPU_ROWS = 64
CPU_ROWS = 8


class MaskDecoder(UpstreamMaskDecoder):
    """Prompts and image embeddings to low-resolution mask logits.

    Upstream repeats one image for all prompts, so a caller must loop over images. Rows of the
    decoder do not see each other: here every row brings its own image; results
    are the same up to the rounding of another batch size.
    Only the mask token LISA reads (`multimask_output=False`: token 0) is turned into a mask. The
    same arithmetic in an order of its own: see `two_way` and `_masks`.
    Upstream: segment-anything `modeling/mask_decoder.py`.
    """

    def __init__(self, geometry: SamGeometry) -> None:
        width = geometry.out_channels
        super().__init__(
            transformer_dim=width,
            transformer=TwoWayTransformer(
                depth=DECODER_DEPTH,
                embedding_dim=width,
                num_heads=DECODER_HEADS,
                mlp_dim=DECODER_MLP_DIM,
            ),
            num_multimask_outputs=MULTIMASK_OUTPUTS,
            iou_head_depth=IOU_HEAD_DEPTH,
            iou_head_hidden_dim=IOU_HEAD_HIDDEN_DIM,
        )

    def forward(
        self,
        image_embeddings: Tensor | Sequence[Tensor],
        image_pe: Tensor,
        sparse_prompts: Tensor,
        dense_prompts: Tensor,
        owner: Sequence[int] | None = None,
        rows_at_once: int | None = None,
        seen: Sequence[tuple[int, int]] | None = None,
    ) -> Tensor:
        """Decode one mask per row.

        `image_embeddings`: I x [C, h, w]; row q is about image `owner[q]`, or q without `owner`.
        `image_pe`: [1, C, h, w]. `sparse_prompts`: [Q, N, C]. `dense_prompts`: broadcasts to
        [1, C, h, w]. One dtype for all. `rows_at_once` bounds memory; default: what is fastest.
        `seen`: how many rows and columns of logits will be read of each image; padding need not be
        made pixels of.
        Returns: logits [Q, 4h, 4w], same dtype, 0 or right where none will be read.
        """
        rows = sparse_prompts.shape[0]
        grid = (int(image_pe.shape[2]), int(image_pe.shape[3]))
        owner = range(rows) if owner is None else owner
        step = rows_at_once or (CPU_ROWS if image_pe.device.type == "cpu" else GPU_ROWS)
        logits = sparse_prompts.new_zeros(rows, 4 * grid[0], 4 * grid[1])
        pixel_pe, dense = _cells(image_pe[0]).contiguous(), _cells(dense_prompts[0])
        for start in range(0, rows, step):
            some = slice(start, start + step)
            pixels = torch.stack([_cells(image_embeddings[image]) for image in owner[some]])
            pixels += dense
            prompts = self._prompts(sparse_prompts[some])
            token, cells = two_way(self.transformer, pixels, pixel_pe, prompts, MASK_TOKEN)
            mask_query: Tensor = self.output_hypernetworks_mlps[0](token)
            part = grid if seen is None else _cells_seen([seen[image] for image in owner[some]])
            made = self._masks(_corner(cells, grid, part), mask_query, part)
            logits[some, : made.shape[1], : made.shape[2]] = made
        return logits

    def _prompts(self, sparse_prompts: Tensor) -> Tensor:
        output_tokens = torch.cat((self.iou_token.weight, self.mask_tokens.weight))
        return torch.cat(
            (output_tokens.expand(sparse_prompts.shape[0], -1, -1), sparse_prompts), dim=1
        )

    def _masks(self, cells: Tensor, mask_query: Tensor, grid: tuple[int, int]) -> Tensor:
        """Cells [Q, h * w, C], each made 4 x 4 pixels, times a query [Q, C / 8]: [Q, 4h, 4w].

        Upstream's transposed convolutions with stride = kernel = 2 do not overlap: each is one
        matrix product, and pixels need not be put in their order before they are single numbers.
        """
        first, norm, _, second, _ = self.output_upscaling
        rows, (height, width) = cells.shape[0], grid
        pixels = functional.linear(cells, *_matrix(first)).view(rows, -1, len(norm.weight))
        pixels = functional.layer_norm(pixels, norm.weight.shape, norm.weight, norm.bias, norm.eps)
        pixels = linear_gelu(functional.gelu(pixels), *_matrix(second))
        logits = torch.bmm(pixels.view(rows, -1, mask_query.shape[-1]), mask_query.unsqueeze(2))
        logits = logits.view(rows, height, width, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return logits.reshape(rows, 4 * height, 4 * width)


def _cells(grid: Tensor) -> Tensor:
    """[C, h, w] -> [h * w, C]."""
    return grid.permute(1, 2, 0).flatten(0, 1)


def _corner(cells: Tensor, grid: tuple[int, int], part: tuple[int, int]) -> Tensor:
    """Cells [Q, h * w, C] of the upper left part of the grid."""
    if part == grid:
        return cells
    corner = cells.view(len(cells), *grid, -1)[:, : part[0], : part[1]]
    return corner.flatten(1, 2).contiguous()


def _cells_seen(seen: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Rows and columns of cells, of 4 x 4 logits each, that cover these rows and columns."""
    return -(-max(rows for rows, _ in seen) // 4), -(-max(columns for _, columns in seen) // 4)


def _matrix(convolution: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """A transposed convolution [C, D, 2, 2] as weight [4 * D, C] and bias of a linear layer."""
    weight, bias = convolution.weight, convolution.bias
    assert bias is not None
    return weight.permute(2, 3, 1, 0).reshape(4 * weight.shape[1], -1), bias.repeat(4)
