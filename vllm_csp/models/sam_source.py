"""Where SAM's sizes and weights come from: the checkpoint, or another image encoder's file."""

from __future__ import annotations

import glob
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from vllm.config import VllmConfig
from vllm.model_executor.model_loader.default_loader import DefaultModelLoader
from vllm.model_executor.models.utils import WeightsMapper
from vllm.platforms import current_platform

from vllm_csp.config import CspConfig
from vllm_csp.models.encoder_file import EncoderFile
from vllm_csp.models.weights import checkpoint_shapes, weight_folder, with_prefix
from vllm_csp.sam.encode_stream import EncodeStream
from vllm_csp.sam.encoder_kind import read_geometry
from vllm_csp.sam.geometry import SamGeometry
from vllm_csp.sam.vit_geometry import VIT_H

CHECKPOINT_PREFIX = "model.visual_model."
ENCODER_PREFIX = "sam_encoder."
NO_INT8 = 100
"""Blackwell's compute capability, times 10, and of what comes after it."""


@dataclass(frozen=True)
class SamSource:
    """SAM's geometry, and the file of its image encoder when that is not the checkpoint's own."""

    geometry: SamGeometry
    encoder_file: Path | None = None

    @classmethod
    def find(cls, vllm_config: VllmConfig) -> Self:
        """Read the geometry off the tensors that will be loaded, the image's size apart.

        Raises: ValueError when the settings name an encoder that does not fit the checkpoint.
        """
        settings = CspConfig.from_additional_config(vllm_config.additional_config)
        geometry, path = _checkpoint_geometry(vllm_config), None
        if settings.sam_encoder != "checkpoint":
            file = EncoderFile.find(
                settings.sam_encoder,
                settings.sam_encoder_weights,
                vllm_config.load_config.download_dir,
            )
            file.require_same_embedding(geometry)
            geometry, path = file.geometry, file.path
        return cls(replace(geometry, image_size=settings.sam_image_size), path)

    @property
    def secondary_weights(self) -> list[DefaultModelLoader.Source]:
        """What vLLM's loader reads beside the checkpoint."""
        if self.encoder_file is None:
            return []
        folder, name = str(self.encoder_file.parent), glob.escape(self.encoder_file.name)
        return [
            DefaultModelLoader.Source(
                folder, None, prefix=ENCODER_PREFIX, allow_patterns_overrides=[name]
            )
        ]

    @property
    def mapper(self) -> WeightsMapper:
        """Puts the file's encoder in the place of the checkpoint's; goes before other names."""
        if self.encoder_file is None:
            return WeightsMapper()
        return WeightsMapper(
            orig_to_new_prefix={
                f"{CHECKPOINT_PREFIX}image_encoder.": None,
                # The classifier that TinyViT was first trained with.
                f"{ENCODER_PREFIX}image_encoder.norm_head.": None,
                f"{ENCODER_PREFIX}image_encoder.head.": None,
                f"{ENCODER_PREFIX}image_encoder.": "visual_model.image_encoder.",
                # The file's own prompt encoder and mask decoder.
                ENCODER_PREFIX: None,
            }
        )


def require_encoder(vllm_config: VllmConfig) -> None:
    """Refuse an image encoder that does not fit when flags are read, before a process starts.

    Raises: as `SamSource.find` does, and ValueError for INT8 where vLLM has no product for it.
    """
    settings = CspConfig.from_additional_config(vllm_config.additional_config)
    if settings.sam_encoder != "checkpoint":
        SamSource.find(vllm_config)
    if settings.sam_quantization == "int8" and not current_platform.is_cpu():
        _require_int8(vllm_config.model_config.dtype)


def encode_stream(settings: CspConfig) -> EncodeStream:
    """Where images are encoded: on a GPU on a stream of its own, unless told not to."""
    own = settings.sam_own_stream and current_platform.is_cuda_alike()
    return EncodeStream(torch.cuda if own else None)


def _require_int8(dtype: torch.dtype) -> None:
    if dtype == torch.float32:
        raise ValueError(
            "sam_quantization int8 goes with --dtype bfloat16 or float16 on a GPU, not float32"
        )
    if current_platform.is_cuda() and current_platform.has_device_capability(NO_INT8):
        raise ValueError(
            "GPUs of this generation have no INT8 products in vLLM: leave sam_quantization out"
        )


def _checkpoint_geometry(vllm_config: VllmConfig) -> SamGeometry:
    """Read off the checkpoint's tensors; ViT-H, LISA's own, when there are none to read."""
    model_config, load_config = vllm_config.model_config, vllm_config.load_config
    if load_config.load_format == "dummy":
        return VIT_H
    folder = weight_folder(model_config.model, model_config.revision, load_config.download_dir)
    return read_geometry(with_prefix(checkpoint_shapes(folder), CHECKPOINT_PREFIX))
