"""Tensor shapes of a checkpoint, read without loading it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

Shapes = dict[str, tuple[int, ...]]


def checkpoint_shapes(folder: str | Path) -> Shapes:
    """Name -> shape of every tensor in a checkpoint folder, `.safetensors` or `.bin`.

    Raises `FileNotFoundError` when the folder holds no weights.
    """
    root = Path(folder)
    files = sorted(root.glob("*.safetensors")) or sorted(root.glob("pytorch_model*.bin"))
    if not files:
        raise FileNotFoundError(f"no *.safetensors or pytorch_model*.bin in {root}")
    return {name: shape for file in files for name, shape in _file_shapes(file)}


def _file_shapes(file: Path) -> Iterator[tuple[str, tuple[int, ...]]]:
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                yield name, tuple(tensors.get_slice(name).get_shape())
        return
    state = torch.load(file, map_location="meta", mmap=True, weights_only=True)
    for name, tensor in state.items():
        yield name, tuple(tensor.shape)


def with_prefix(shapes: Shapes, prefix: str) -> Shapes:
    """The entries below `prefix`, without it."""
    return {
        name.removeprefix(prefix): shape
        for name, shape in shapes.items()
        if name.startswith(prefix)
    }


def weight_folder(model: str, revision: str | None, download_dir: str | None) -> Path:
    """Local folder of a checkpoint given as a path or hub id, downloaded if need be."""
    if Path(model).is_dir():
        return Path(model)
    from vllm.model_executor.model_loader.weight_utils import download_weights_from_hf

    patterns = ["*.safetensors", "pytorch_model*.bin"]
    return Path(download_weights_from_hf(model, download_dir, patterns, revision))
