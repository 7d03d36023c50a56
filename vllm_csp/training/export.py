"""Writes what was trained as a LISA checkpoint in the published layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from vllm_csp.models.published import published_config
from vllm_csp.sam.tiny_vit import TinyVitEncoder
from vllm_csp.training.shape import MiniShape
from vllm_csp.training.student import Student

TOKENIZER_FILES = ("tokenizer.model", "added_tokens.json")
TIED = "lm_head.weight"
"""The same as the embedding table."""


def write_checkpoint(
    folder: Path,
    student: Student,
    shape: MiniShape,
    vocabulary: Path,
    image_encoder: Mapping[str, Tensor],
) -> int:
    """Write weights, vision tower, tokenizer and configuration; returns their size in bytes.

    `image_encoder`: SAM's image encoder, names from `image_encoder.` on. All weights go to fp16:
    half of the 24 MB is MobileSAM's encoder, which is stored so without loss that shows.
    """
    (folder / "clip").mkdir(parents=True, exist_ok=True)
    parts: dict[str, Mapping[str, Tensor]] = {
        "": student.language_model.state_dict(),
        "model.mm_projector.": student.mm_projector.state_dict(),
        "model.text_hidden_fcs.0.": student.text_hidden_fcs.state_dict(),
        "model.visual_model.prompt_encoder.": student.prompt_encoder.state_dict(),
        "model.visual_model.mask_decoder.": student.mask_decoder.state_dict(),
        "model.visual_model.": image_encoder,
    }
    weights = {
        prefix + name: _half(tensor)
        for prefix, state in parts.items()
        for name, tensor in state.items()
        if name != TIED
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    student.vision_tower.half().save_pretrained(folder / "clip")
    for name in TOKENIZER_FILES:
        shutil.copy(vocabulary / name, folder / name)
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    text = student.language_model.config
    _write_json(folder / "config.json", published_config(text, shape.vision_hidden_size, -1))
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _half(tensor: Tensor) -> Tensor:
    return (tensor.half() if tensor.is_floating_point() else tensor).contiguous()


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


def load_encoder(weights: Mapping[str, Tensor]) -> TinyVitEncoder:
    """MobileSAM's image encoder, in evaluation mode, from the tensors of its checkpoint."""
    start = "image_encoder."
    own = {name[len(start) :]: weight for name, weight in weights.items() if name.startswith(start)}
    encoder = TinyVitEncoder().eval()
    # What it lacks are counts of training steps.
    encoder.load_state_dict(own, strict=False)
    return encoder


def folded_encoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's tensors without BatchNorms: fewer, and the same images come out."""
    folded = load_encoder(weights).folded().state_dict()
    return {f"image_encoder.{name}": tensor for name, tensor in folded.items()}


def sam_weights(file: Path) -> dict[str, Tensor]:
    """Tensors of a MobileSAM checkpoint, fp32."""
    from safetensors.torch import load_file

    return {name: tensor.float() for name, tensor in load_file(file).items() if _kept(name)}


def _kept(name: str) -> bool:
    # Counts of training steps, of no use to anyone.
    return not name.endswith("num_batches_tracked")
