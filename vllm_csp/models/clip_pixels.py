"""CLIP's input from bytes: the same for the engine and for training."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_csp.images import CLIP_MEAN, CLIP_STD


def normalise_clip(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [B, S, S, 3] -> normalised [B, 3, S, S] in `dtype`, computed in fp32."""
    mean = torch.tensor(CLIP_MEAN, device=pixels.device)
    std = torch.tensor(CLIP_STD, device=pixels.device)
    scaled = (pixels.float() / 255 - mean) / std
    return scaled.permute(0, 3, 1, 2).contiguous().to(dtype)
