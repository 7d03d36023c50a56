"""Folders in the layout of the published checkpoints, without their gigabytes."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from benchmarks.checkpoint import num_bytes, write_hole
from tests.oracle import oracle_folder

Size = Literal["7b", "13b"]
SIZES: tuple[Size, ...] = ("7b", "13b")

MISSING = "no published files: set VLLM_CSP_LISA_DATA to the folder of LISA's small files"
_CONFIG = {"7b": "config_7b_v1.json", "13b": "config_13b_llama2_v1.json"}
_ADDED_TOKENS = {"7b": "added_tokens_7b.json", "13b": "added_tokens_13b_llama2.json"}
_DTYPES = {"bf16": "BF16", "f32": "F32"}
SHARD_BYTES = 9_000_000_000

# Of openai/clip-vit-large-patch14.
CLIP_CONFIG = {
    "architectures": ["CLIPVisionModel"],
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "quick_gelu",
}


@dataclass(frozen=True)
class Published:
    """A checkpoint folder: small files as published, weights as a header over a hole."""

    size: Size
    folder: Path
    shapes: Mapping[str, tuple[int, ...]]


def data_folder() -> Path:
    """`VLLM_CSP_LISA_DATA`, or the folder that comes with the oracle; skips without it."""
    beside = oracle_folder().parent / "data" / "lisa"
    folder = Path(os.environ.get("VLLM_CSP_LISA_DATA", beside))
    if not folder.is_dir():
        pytest.skip(MISSING)
    return folder


def read_json(name: str) -> Any:
    """One of the published files."""
    return json.loads((data_folder() / name).read_text())


def write_tokenizer(folder: Path, size: Size) -> None:
    """`tokenizer.model` and `added_tokens.json`."""
    (folder / "tokenizer.model").symlink_to(data_folder() / "tokenizer.model")
    (folder / "added_tokens.json").write_text(json.dumps(read_json(_ADDED_TOKENS[size])))


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """`config.json`, and the vision tower's where the name in it says."""
    (folder / "config.json").write_text(json.dumps(config))
    tower = folder / config["vision_tower"]
    tower.mkdir(parents=True)
    (tower / "config.json").write_text(json.dumps(CLIP_CONFIG))


def published_config(size: Size) -> dict[str, Any]:
    """`config.json` as published."""
    return read_json(_CONFIG[size])


def write_published(folder: Path, size: Size) -> Published:
    """A whole folder; its weights take no space on disk."""
    write_config(folder, published_config(size))
    write_tokenizer(folder, size)
    manifest = read_json(f"manifest_{size}.json")["keys"]
    tensors = {name: (_DTYPES[dtype], tuple(shape)) for name, (dtype, *shape) in manifest.items()}
    _write_shards(folder, tensors)
    return Published(size, folder, {name: shape for name, (_, shape) in tensors.items()})


def _write_shards(folder: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Files with the right headers and nothing in them; tensors: dtype and shape."""
    shards: list[dict[str, tuple[str, tuple[int, ...]]]] = [{}]
    room = SHARD_BYTES
    for name, tensor in tensors.items():
        if num_bytes(*tensor) > room:
            shards.append({})
            room = SHARD_BYTES
        shards[-1][name] = tensor
        room -= num_bytes(*tensor)
    for number, shard in enumerate(shards, 1):
        write_hole(folder / f"model-{number:05}-of-{len(shards):05}.safetensors", shard)
