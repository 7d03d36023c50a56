"""The image encoders that are measured: SAM's, at any size, and CLIP's."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.ceiling import Part, clip_tower, sam_encoder
from benchmarks.checkpoint import clip_large
from benchmarks.sized_name import kind_and_size

if TYPE_CHECKING:
    from torch import nn

    from vllm_csp.sam.geometry import SamGeometry

ENCODERS = ["vit_h", "mobile_sam", "clip", "tiny"]


def work(encoder: str, dtype: str = "bfloat16") -> Part:
    """Operations for one image, and the bytes of the weights."""
    if encoder == "clip":
        return clip_tower(clip_large(), dtype)
    part = sam_encoder(_geometry(encoder), dtype)
    return Part(encoder, part.flop, part.bytes)


def exists(encoder: str, implementation: str, way: str) -> bool:
    """Only ViTs have attention of several kinds; CLIP runs as transformers ship it, in one way."""
    kind = encoder.partition("@")[0]
    is_vit = kind in ("vit_h", "tiny")
    if implementation == "shipped":
        return kind != "clip" and way == "auto"
    if implementation in ("int8", "compiled") and kind == "clip":
        return False
    return way == "auto" or (kind == "mobile_sam" if way == "unfused" else is_vit)


def build(encoder: str) -> tuple[nn.Module, int]:
    """With random weights, and the side of what it takes, in pixels."""
    from transformers import CLIPVisionModel

    from vllm_csp.sam.encoder_kind import build_encoder

    if encoder == "clip":
        config = clip_large()
        return CLIPVisionModel(config).eval(), config.image_size
    geometry = _geometry(encoder)
    model = build_encoder(geometry).eval()
    for name, weight in model.named_parameters():
        if "rel_pos" in name or name == "pos_embed":
            weight.data.normal_(std=0.02)
    return model, geometry.image_size


def encoder_name(text: str) -> str:
    """An argument that names an encoder; raises ArgumentTypeError for one that is none."""
    kind, _ = kind_and_size(text, ENCODERS)
    if kind == "clip" != text:
        raise argparse.ArgumentTypeError("CLIP's tower takes one size")
    return text


def _geometry(encoder: str) -> SamGeometry:
    from vllm_csp.sam.tiny_vit_geometry import MOBILE_SAM
    from vllm_csp.sam.vit_geometry import VIT_H
    from vllm_csp.standin import SAM

    kind, side = kind_and_size(encoder, ENCODERS)
    known: dict[str, SamGeometry] = {"vit_h": VIT_H, "mobile_sam": MOBILE_SAM, "tiny": SAM}
    return replace(known[kind], image_size=side)
