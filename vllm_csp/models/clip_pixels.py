"""CLIP's input from bytes: the same for the engine and for training."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vllm_csp.device_copy import on_device
from vllm_csp.images import CLIP_MEAN, CLIP_STD


def normalise_clip(pixels: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 [B, S, S, 3] -> normalised [B, 3, S, S] in `dtype`, computed in fp32."""
    mean = on_device(np.array(CLIP_MEAN, dtype=np.float32), pixels.device)
    std = on_device(np.array(CLIP_STD, dtype=np.float32), pixels.device)
    scaled = (pixels.float() / 255 - mean) / std
    return scaled.permute(0, 3, 1, 2).contiguous().to(dtype)
