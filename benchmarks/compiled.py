"""An image encoder's blocks through `torch.compile`, which the engine leaves out.

It makes code anew for each extent of a photo in its padded square, and for one image and for
several: half a minute each on a CPU, in the middle of serving.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def compile_blocks(encoder: nn.Module) -> None:
    """One graph per kind of block instead of one of all, which would take minutes to make.

    A ViT's blocks are compiled for all encoders of this process.
    """
    import torch

    from vllm_csp.sam import tiny_vit, vit

    if isinstance(encoder, vit.VitEncoder):
        vit._apply_block = torch.compile(vit._apply_block)
        return
    for block in encoder.modules():
        if isinstance(block, (tiny_vit.InvertedBottleneck, tiny_vit.AttentionBlock)):
            block.compile()
