"""Low-resolution logits to masks at original size, their scores and their packed bits."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vllm_csp.sam.resize import to_original

PIXELS_PER_CHUNK = 1 << 24

# Bit 8 * i of a product with it is found again at bit 63 - i; as a signed number.
_GATHER = sum(1 << (63 - 9 * i) for i in range(8)) - (1 << 64)


def packed_masks(
    low_res: Tensor,
    input_size: tuple[int, int],
    original_size: tuple[int, int],
    image_size: int,
    pixels_per_chunk: int = PIXELS_PER_CHUNK,
) -> tuple[Tensor, Tensor]:
    """Masks of one image's logits, packed to bits: `masks_from_logits`, then `pack_bits`.

    Returns: uint8 [Q, bytes] and scores fp32 [Q]. Memory beside the result is that of
    `pixels_per_chunk`, but at least of one mask, however many there are.
    """
    height, width = original_size
    rows_at_once = max(1, pixels_per_chunk // (height * max(width, low_res.shape[-1])))
    bits, scores = [], []
    for rows in torch.split(low_res, rows_at_once):
        masks, found = masks_from_logits(rows, input_size, original_size, image_size)
        bits.append(pack_bits(masks))
        scores.append(found)
    return torch.cat(bits), torch.cat(scores)


def masks_from_logits(
    low_res: Tensor,
    input_size: tuple[int, int],
    original_size: tuple[int, int],
    image_size: int,
) -> tuple[Tensor, Tensor]:
    """Upscale the logits of one image, cut the padding off, threshold at 0.

    `low_res`: [Q, m, m], any float dtype; what lies beyond `rows_seen` of either side is not read.
    `input_size`: (h, w) of the resized image inside the padded square of side `image_size`, a
    multiple of m. `original_size`: (H, W). All in pixels.
    Returns: masks bool [Q, H, W], usually column after column in memory, and scores fp32 [Q]. A
    score is the mean foreground probability over the mask's pixels, 0.0 for an empty mask; SAM's
    own predicted IoU would mean nothing here, as LISA never trains that head.
    Upstream: LISA `model/segment_anything/modeling/sam.py`, `postprocess_masks`.
    """
    logits = to_original(low_res, input_size, original_size, image_size)
    masks = logits > 0
    return masks, _mean_probability(logits, masks)


def _mean_probability(logits: Tensor, masks: Tensor) -> Tensor:
    """Mean sigmoid [Q] of the logits [Q, H, W] above 0, which `masks` are; overwrites the logits.

    sigmoid(x) = 0.5 + 0.5 * tanh(x / 2): background counts as exact zeros in the sum.
    """
    count = masks.sum(dim=(1, 2))
    above = logits.clamp_(min=0).mul_(0.5).tanh_().sum(dim=(1, 2))
    return torch.where(count > 0, 0.5 + 0.5 * above / count.clamp(min=1), 0.0)


def pack_bits(masks: Tensor) -> Tensor:
    """Pack masks to one bit per pixel, on the device, for the way to another process.

    `masks`: bool [Q, H, W]. Returns: uint8 [Q, ceil(H * W / 8)]; pixels in column-major order, the
    order of COCO RLE; the first pixel is the highest bit; unused bits at the end are 0. Nothing
    waits for the device. Eight pixels are one 64-bit number, whose product with `_GATHER` has all
    of them in its highest byte: the partial products lie on different bits, so nothing is carried.
    """
    count, height, width = masks.shape
    packed = torch.empty((count, -(-height * width // 8)), dtype=torch.uint8, device=masks.device)
    # One by one: a large image's masks would take eight times their memory at once.
    for row, mask in zip(packed, masks, strict=True):
        pixels = mask.t().flatten().view(torch.uint8)
        eights = functional.pad(pixels, (0, -pixels.numel() % 8)).view(torch.int64)
        row.copy_((eights * _GATHER) >> 56)
    return packed


def fetch_masks(parts: Sequence[tuple[Tensor, Tensor]]) -> list[tuple[list[bytes], list[float]]]:
    """Packed bits [Q, bytes] and scores fp32 [Q] of several images, in one transfer to the host."""
    if not parts:
        return []
    together = [part.contiguous().view(torch.uint8).flatten() for pair in parts for part in pair]
    pieces = torch.split(torch.cat(together).cpu(), [len(piece) for piece in together])
    data = [piece.numpy().tobytes() for piece in pieces]
    found = []
    for (packed, _), bits, scores in zip(parts, data[::2], data[1::2], strict=True):
        length = packed.shape[1]
        masks = [bits[start : start + length] for start in range(0, len(bits), length)]
        found.append((masks, np.frombuffer(scores, dtype=np.float32).tolist()))
    return found
