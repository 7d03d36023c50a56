"""Tensor shapes of a checkpoint, read without loading it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

Shapes = dict[str, tuple[int, ...]]
FILE_KINDS = ["*.safetensors", "*.pt", "*.pth"]


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
    # Never without weights_only: a pickle could run anything.
    state = torch.load(file, map_location="meta", mmap=True, weights_only=True)
    for name, tensor in state.items():
        yield name, tuple(tensor.shape)


def file_shapes(file: Path) -> Shapes:
    """Name -> shape of every tensor in one file, safetensors or a pickled state dict.

    Raises `ValueError` for a file that is neither.
    """
    try:
        return dict(_file_shapes(file))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, AttributeError) as error:
        raise ValueError(f"not a file of named tensors ({error})") from error


def weight_file(place: str, download_dir: str | None) -> Path:
    """Local file of tensors: `place` is that file, a folder that holds one, or a hub id.

    Raises `ValueError` when there is no such file, or more than one.
    """
    path = Path(place)
    if path.is_file():
        return path
    if not path.is_dir():
        if f"*{path.suffix}" in FILE_KINDS:
            raise ValueError(f"there is no file {place}")
        path = _download(place, download_dir)
    files = next((found for kind in FILE_KINDS if (found := sorted(path.glob(kind)))), [])
    if len(files) != 1:
        kinds, names = ", ".join(FILE_KINDS), [file.name for file in files]
        raise ValueError(f"{place} must hold one of {kinds}, and has {names or 'none'}")
    return files[0]


def _download(hub_id: str, download_dir: str | None) -> Path:
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from vllm.model_executor.model_loader.weight_utils import download_weights_from_hf

    try:
        return Path(download_weights_from_hf(hub_id, download_dir, FILE_KINDS))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"{hub_id} is neither a file nor a folder here, and cannot be had as a hub id: {error}"
        ) from error


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
