"""Random checkpoints of any size in LISA's layout, written once; and hollow ones for large sizes.

A hollow checkpoint has the names and shapes of all tensors and no values: its file is a hole.
Whoever loads it makes them up (`benchmarks.random_weights`), so that a model of LISA-7B's size
needs no 16 GB on disk.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isqrt, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.random_weights import ANSWER
from vllm_csp.cache_folder import CACHE
from vllm_csp.models.published import published_config

if TYPE_CHECKING:
    from transformers import CLIPVisionConfig

    from vllm_csp.sam.vit_geometry import VitGeometry

PATCH = 14
WIDTHS = {"BF16": 2, "F32": 4}
"""Bytes of a value."""


@dataclass(frozen=True)
class Size:
    """What a checkpoint is like; `large`: CLIP-L and SAM's ViT-H instead of tiny ones."""

    layers: int = 8
    hidden: int = 128
    image_tokens: int = 256
    large: bool = False
    answer_tokens: int = 7

    @property
    def ffn(self) -> int:
        """Width of the feed-forward part, in Llama's proportion."""
        return 11008 if self.hidden == 4096 else 8 * self.hidden // 3 // 64 * 64

    @property
    def heads(self) -> int:
        """Of 64 channels, or 128 as in LISA-7B."""
        return self.hidden // (128 if self.hidden >= 4096 else 32 if self.hidden < 512 else 64)

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(map(str, asdict(self).values())).lower()


def write_checkpoint(size: Size, hollow: bool = False) -> Path:
    """The folder of such a checkpoint; one that is there is kept."""
    from vllm_csp.standin import write_standin

    folder = CACHE / "bench" / (size.name + ("-hollow" if hollow else ""))
    if hollow:
        return _write_hollow(size, folder)
    vision, sam = image_networks(size)
    return write_standin(
        folder,
        hidden_size=size.hidden,
        intermediate_size=size.ffn,
        num_layers=size.layers,
        num_heads=size.heads,
        vision=vision,
        sam=sam,
        answer_tokens=size.answer_tokens,
    )


def image_networks(size: Size) -> tuple[CLIPVisionConfig, VitGeometry]:
    """CLIP tower and SAM encoder: published sizes if large, else the stand-in's.

    Raises ValueError if the image tokens make no square.
    """
    from vllm_csp.sam.vit_geometry import VIT_H
    from vllm_csp.standin import SAM, VISION

    side = isqrt(size.image_tokens)
    if side**2 != size.image_tokens:
        raise ValueError(f"{size.image_tokens} image tokens are no square")
    vision = clip_large() if size.large else VISION
    wanted = type(VISION)(**{**vision.to_dict(), "image_size": PATCH * side})
    return wanted, VIT_H if size.large else SAM


def clip_large() -> CLIPVisionConfig:
    """CLIP ViT-L/14, the tower of LISA (openai/clip-vit-large-patch14)."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=16 * PATCH,
        patch_size=PATCH,
    )


def _write_hollow(size: Size, folder: Path) -> Path:
    import torch

    from vllm_csp import standin

    if (folder / "config.json").exists() and (folder / ANSWER).exists():
        return folder
    vision, sam = image_networks(size)
    # Tokenizer and tower come with a small one, whose width the tower's rows do not depend on.
    small = standin.write_standin(
        CACHE / "bench" / f"small-{size.name}", num_layers=1, vision=vision
    )
    folder.mkdir(parents=True, exist_ok=True)
    text = standin.llama_config(size.hidden, size.ffn, size.layers, size.heads)
    with torch.device("meta"):
        weights = standin.build_weights(text, vision, sam)
    shapes = {name: ("BF16", tuple(one.shape)) for name, one in weights.items()}
    write_hole(folder / "model.safetensors", shapes)
    for name in ("clip", "added_tokens.json", "generation_config.json", "tokenizer.model"):
        if not (folder / name).exists():
            (folder / name).symlink_to((small / name).resolve())
    answer = standin.answer_ids(folder / "tokenizer.model", size.answer_tokens)
    (folder / ANSWER).write_text(json.dumps(answer))
    config = published_config(text, vision.hidden_size, standin.VISION_LAYER)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return folder


def num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Of a tensor's values; dtype: as safetensors calls it."""
    return WIDTHS[dtype] * prod(shape)


def write_hole(file: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """A safetensors file of tensors without values, which takes no room on disk.

    tensors: dtype, as safetensors calls it, and shape.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in tensors.items():
        begin, end = end, end + num_bytes(dtype, shape)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as opened:
        opened.write(len(text).to_bytes(8, "little") + text)
        opened.truncate(8 + len(text) + end)
