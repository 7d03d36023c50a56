"""Arrays that the host made, sent to the device without waiting for it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def on_device(array: NDArray[np.generic], device: torch.device) -> Tensor:
    """The array as a tensor; a copy to CUDA goes through pinned memory and does not wait."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
