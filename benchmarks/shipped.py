"""segment-anything's own code on the weights of ours, and LISA's way from there to masks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from benchmarks.calls import Mask
from benchmarks.plain_tiny_vit import encode_plainly
from vllm_csp.images import sam_input_size
from vllm_csp.sam.sam import Sam
from vllm_csp.sam.tiny_vit import TinyVitEncoder
from vllm_csp.sam.upstream import ImageEncoderViT, MaskDecoder
from vllm_csp.sam.vit import VitEncoder


def shipped_encode(encoder: nn.Module, pixels: Tensor) -> Tensor:
    """Embeddings [B, C, S / 16, S / 16] of normalised pixels [B, 3, S, S].

    By segment-anything's encoder, or MobileSAM's steps one by one.
    """
    if isinstance(encoder, TinyVitEncoder):
        return encode_plainly(encoder, pixels)
    assert isinstance(encoder, VitEncoder)
    return ImageEncoderViT.forward(encoder, pixels)


def shipped_masks(
    sam: Sam, embedding: Tensor, queries: Tensor, size: tuple[int, int]
) -> list[Mask]:
    """Masks of one image, size (height, width): embedding [C, h, w], queries [n, C].

    Positions are encoded anew each time; logits of full resolution go to the host in fp32 and are
    thresholded there.
    """
    if not len(queries):
        return []
    sam.prompt_encoder.forget_dense_pe()
    sparse, dense = sam.prompt_encoder(queries)
    low_res, _ = MaskDecoder.forward(
        sam.mask_decoder,
        image_embeddings=embedding[None],
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense.expand(len(sparse), -1, *embedding.shape[1:]),
        multimask_output=False,
    )
    height, width = sam_input_size(size, sam.image_size)
    square = _resize(low_res.float(), (sam.image_size, sam.image_size))
    logits = _resize(square[..., :height, :width], size)[:, 0]
    return list(logits.cpu().numpy() > 0)


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    return functional.interpolate(images, size, mode="bilinear", align_corners=False)
