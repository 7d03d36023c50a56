"""Image preprocessing in vLLM's multi-modal processor: one decoded image, two sets of pixels.

Pixels travel as uint8 and are normalised and padded on the device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import BatchFeature
from vllm.config.multimodal import MultiModalDummyOptions
from vllm.exceptions import VLLMValidationError
from vllm.multimodal.inputs import MultiModalFieldConfig, MultiModalKwargsItems
from vllm.multimodal.media import MediaWithBytes
from vllm.multimodal.parse import (
    ImageProcessorItems,
    ModalityDataItems,
    MultiModalDataItems,
    MultiModalDataParser,
)
from vllm.multimodal.processing import (
    BaseDummyInputsBuilder,
    BaseMultiModalProcessor,
    BaseProcessingInfo,
    PromptReplacement,
    PromptUpdate,
)

from vllm_csp.images import (
    MAX_PIXELS,
    SAM_IMAGE_SIZE,
    ImageError,
    clip_crop,
    image_key,
    sam_resize,
    to_rgb,
)
from vllm_csp.models.config import LisaConfig


def decoded_image(item: Any) -> Image.Image:
    """The image as LISA's reader gives it: RGB, upright, alpha dropped.

    Raises `VLLMValidationError` (a 400) saying what is wrong with it.
    """
    if isinstance(item, MediaWithBytes):
        item = item.media
    if isinstance(item, np.ndarray):
        item = Image.fromarray(item)
    if not isinstance(item, Image.Image):
        raise VLLMValidationError(
            f"expected an image, got {type(item).__name__}", parameter="image_url"
        )
    if item.width * item.height > MAX_PIXELS:
        raise VLLMValidationError(
            f"the image has too many pixels: {item.width} x {item.height}, at most {MAX_PIXELS} "
            "allowed",
            parameter="image_url",
        )
    if type(item) is Image.Image and item.mode == "RGB" and not item.info and min(item.size):
        return item  # decoded before: nothing would change, and copying a large one takes time
    try:
        return to_rgb(item)
    except ImageError as error:
        raise VLLMValidationError(str(error), parameter="image_url") from error


class LisaDataParser(MultiModalDataParser):
    """Decodes images the way LISA does, whichever way they come in."""

    def _parse_image_data(self, data: Any) -> ModalityDataItems[Any, Any] | None:
        if data is None:
            return None
        items = data if isinstance(data, list) else [data]
        return ImageProcessorItems([None if one is None else decoded_image(one) for one in items])


class LisaProcessingInfo(BaseProcessingInfo):
    """What vLLM asks about the inputs: one image per prompt, its number of rows."""

    def get_hf_config(self) -> LisaConfig:
        """The model's configuration."""
        return self.ctx.get_hf_config(LisaConfig)

    def get_supported_mm_limits(self) -> Mapping[str, int | None]:
        """One image: LISA was trained with one, and its mask belongs to it."""
        return {"image": 1}

    def get_supported_mm_processor_kwargs(self) -> dict[str, set[str]]:
        """None: both pixel sizes are the model's."""
        return {}

    def get_data_parser(self) -> MultiModalDataParser:
        """Parser with LISA's decoding."""
        return LisaDataParser(expected_hidden_size=self._get_expected_hidden_size())

    def get_mm_max_tokens_per_item(
        self, seq_len: int, mm_counts: Mapping[str, int]
    ) -> Mapping[str, int] | None:
        """Every image has the same number of rows."""
        return {"image": self.get_hf_config().num_image_tokens}


class LisaDummyInputs(BaseDummyInputsBuilder[LisaProcessingInfo]):
    """Inputs for vLLM's memory profiling."""

    def get_dummy_text(self, mm_counts: Mapping[str, int]) -> str:
        """One placeholder per image."""
        return "<image>" * mm_counts.get("image", 0)

    def get_dummy_mm_data(
        self,
        seq_len: int,
        mm_counts: Mapping[str, int],
        mm_options: Mapping[str, MultiModalDummyOptions],
    ) -> dict[str, Any]:
        """Square images, which fill SAM's input."""
        count, side = mm_counts.get("image", 0), SAM_IMAGE_SIZE
        return {"image": self._get_dummy_images(width=side, height=side, num_images=count)}


class LisaProcessor(BaseMultiModalProcessor[LisaProcessingInfo]):
    """Makes CLIP's and SAM's pixels, and room for the image rows in the prompt."""

    def _call_hf_processor(
        self, hf_data: Mapping[str, object], hf_kwargs: Mapping[str, object]
    ) -> BatchFeature:
        images: Any = hf_data["images"]
        config = self.info.get_hf_config()
        size, sam_size = config.vision_config.image_size, config.sam_image_size
        pairs = [(clip_crop(image, size), sam_resize(image, sam_size)) for image in images]
        return BatchFeature(
            {
                "clip_pixels": torch.from_numpy(np.stack([clip for clip, _ in pairs])),
                "sam_pixels": [torch.from_numpy(sam) for _, sam in pairs],
                "original_size": torch.tensor([(image.height, image.width) for image in images]),
                "image_key": torch.stack([key_to_tensor(image_key(image)) for image in images]),
            }
        )

    def _get_mm_fields_config(
        self, hf_inputs: BatchFeature, hf_processor_mm_kwargs: Mapping[str, object]
    ) -> Mapping[str, MultiModalFieldConfig]:
        return {
            "clip_pixels": MultiModalFieldConfig.batched("image"),
            "sam_pixels": MultiModalFieldConfig.batched("image"),
            "original_size": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
            "image_key": MultiModalFieldConfig.batched("image", keep_on_cpu=True),
        }

    def _get_prompt_updates(
        self,
        mm_items: MultiModalDataItems,
        hf_processor_mm_kwargs: Mapping[str, object],
        out_mm_kwargs: MultiModalKwargsItems,
    ) -> Sequence[PromptUpdate]:
        config = self.info.get_hf_config()
        token = config.image_token_index
        return [
            PromptReplacement(
                modality="image",
                target=[token],
                replacement=[token] * config.num_image_tokens,
            )
        ]


def key_to_tensor(key: str) -> torch.Tensor:
    """An image key (hex) as uint8 bytes, to travel with the pixels."""
    return torch.frombuffer(bytearray.fromhex(key), dtype=torch.uint8)


def tensor_to_key(key: torch.Tensor) -> str:
    """The inverse of `key_to_tensor`."""
    return bytes(key.tolist()).hex()
