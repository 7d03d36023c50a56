"""A small LISA checkpoint whose random weights make every token matter."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from vllm_csp.standin import write_standin

KV_HEADS = 2


def write_sharp(folder: Path) -> Path:
    """Write it, or keep it if it is there; returns the folder.

    The stand-in's weights are so small that its states hardly depend on attention: a wrong set of
    tokens would go unnoticed. Here every matrix keeps the size of what it multiplies, and two heads
    share their keys.
    """
    write_standin(folder)
    done = folder / "sharp"
    if done.exists():
        return folder
    generator = torch.Generator().manual_seed(5)
    for file in (folder / "model.safetensors", folder / "clip" / "model.safetensors"):
        tensors = load_file(file)
        for name in tensors:
            if not name.startswith("model.visual_model."):
                tensors[name] = _redrawn(name, tensors[name], generator)
        save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["num_key_value_heads"] = KV_HEADS
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    done.touch()
    return folder


def _redrawn(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    shape = list(tensor.shape)
    if not tensor.dtype.is_floating_point:
        return tensor
    if "norm" in name:
        if name.endswith("bias"):
            return tensor
        return (1 + 0.1 * torch.randn(shape, generator=generator)).to(tensor.dtype)
    if len(shape) < 2:
        return (0.1 * torch.randn(shape, generator=generator)).to(tensor.dtype)
    if (
        name.endswith(("k_proj.weight", "v_proj.weight"))
        and "self_attn" in name
        and "model.layers" in name
    ):
        shape[0] = shape[0] // 4 * KV_HEADS
    drawn = torch.randn(shape, generator=generator)
    if "embed" not in name or "patch" in name:
        drawn /= drawn[0].numel() ** 0.5
    return drawn.to(tensor.dtype)
