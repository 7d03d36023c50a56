"""SAM as the engine uses it: images in as they arrive, masks out in batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vllm_csp.sam.embedding_cache import EmbeddingCache, ImageEmbedding
from vllm_csp.sam.encode_clock import EncodeClock
from vllm_csp.sam.encode_stream import EncodeStream
from vllm_csp.sam.postprocess import fetch_masks, packed_masks
from vllm_csp.sam.resize import rows_seen
from vllm_csp.sam.sam import Sam

logger = logging.getLogger("vllm.plugins.vllm_csp.sam")


# One image's activations are more than a CPU's cache holds; more at once only take longer
# (`python -m benchmarks.encode --encoders mobile_sam --batches 1 4`).
CPU_IMAGES = 1
# Enough work for a GPU; vLLM sets memory aside for one image only, as all that it profiles with
# are the same, and a step may bring 64.
GPU_IMAGES = 8


@dataclass(frozen=True)
class MaskSet:
    """Masks of one answer: packed bits (column-major) per mask, scores, size (height, width)."""

    size: tuple[int, int]
    masks: list[bytes]
    scores: list[float]


class MaskService:
    """Image embeddings by content key, and mask decoding over many images at once."""

    def __init__(
        self,
        sam: Sam,
        cache_size: int,
        host_cache_size: int = 0,
        encode_stream: EncodeStream | None = None,
    ) -> None:
        # In a tuple, so that the owning module does not register SAM a second time.
        self._sam = (sam,)
        self.embeddings = EmbeddingCache(cache_size, host_cache_size)
        self._clock = EncodeClock()
        self.encode_stream = encode_stream or EncodeStream()

    @property
    def encode_seconds(self) -> float:
        """Time in the image encoder, of images that are done."""
        return self._clock.seconds()

    @torch.inference_mode()
    def encode(
        self,
        keys: Sequence[str],
        pixels: Sequence[torch.Tensor],
        original_sizes: Sequence[tuple[int, int]],
    ) -> None:
        """Embed the images that the cache lacks, a few at once.

        pixels: uint8 [h, w, 3] each, long side SAM's image size; sizes are (height, width).
        """
        missing = {key: i for i, key in enumerate(keys) if self.embeddings.get(key) is None}
        if not missing:
            return
        sam, left = self._sam[0], list(missing.items())
        at_once = CPU_IMAGES if sam.device.type == "cpu" else GPU_IMAGES
        for first in range(0, len(left), at_once):
            some = left[first : first + at_once]
            chosen = [pixels[i] for _, i in some]
            with self.encode_stream.beside(chosen), self._clock.running(sam.device):
                embeddings = [_channels_last(one) for one in _encode(sam, chosen)]
            made = self.encode_stream.event()
            for (key, i), own in zip(some, embeddings, strict=True):
                seen = (pixels[i].shape[0], pixels[i].shape[1])
                self.embeddings.put(key, ImageEmbedding(own, seen, original_sizes[i], made))

    @torch.inference_mode()
    def low_res_logits(
        self, images: Sequence[ImageEmbedding], queries: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """Mask logits [sum n, 256, 256] of queries n x [out_dim] per image, in one call.

        Those of the padding are left out, as far as no mask depends on them.
        """
        owner = [image for image, rows in enumerate(queries) for _ in rows]
        sam, side = self._sam[0], 4 * images[0].embedding.shape[1]
        seen = [
            (rows_seen(height, side, sam.image_size), rows_seen(width, side, sam.image_size))
            for height, width in (image.input_size for image in images)
        ]
        embeddings = [image.in_order() for image in images]
        return sam.decode(embeddings, torch.cat(list(queries)), owner, seen=seen)

    @torch.inference_mode()
    def decode(
        self, images: Sequence[ImageEmbedding], queries: Sequence[torch.Tensor]
    ) -> list[MaskSet]:
        """Masks of queries n x [out_dim] per image, at the images' original sizes."""
        if not images:
            return []
        logits = self.low_res_logits(images, queries)
        parts = []
        sizes = [len(rows) for rows in queries]
        for image, low_res in zip(images, torch.split(logits, sizes), strict=True):
            side = self._sam[0].image_size
            parts.append(packed_masks(low_res, image.input_size, image.original_size, side))
        return [
            MaskSet(image.original_size, bits, scores)
            for image, (bits, scores) in zip(images, fetch_masks(parts), strict=True)
        ]

    def decode_each(
        self, images: Sequence[ImageEmbedding], queries: Sequence[torch.Tensor]
    ) -> Sequence[MaskSet | str]:
        """`decode`; if that fails, image by image, with the error's name where it fails.

        One answer that needs more memory than there is must not take the others' masks with it.
        """
        try:
            return self.decode(images, queries)
        except RuntimeError as error:
            if len(images) == 1:
                logger.exception("masks could not be made")
                return [type(error).__name__]
        return [
            found
            for image, rows in zip(images, queries, strict=True)
            for found in self.decode_each([image], [rows])
        ]


def _encode(sam: Sam, pixels: Sequence[torch.Tensor]) -> torch.Tensor:
    """Embeddings [B, C, h, w] of images uint8 [h, w, 3]."""
    seen = (max(image.shape[0] for image in pixels), max(image.shape[1] for image in pixels))
    return sam.encode(sam.preprocess(pixels), seen)


def _channels_last(embedding: torch.Tensor) -> torch.Tensor:
    """A copy [C, h, w] whose cells lie one behind the other, as the mask decoder reads them."""
    return embedding.permute(1, 2, 0).clone(memory_format=torch.contiguous_format).permute(2, 0, 1)
