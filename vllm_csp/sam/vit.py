"""SAM's own image encoder, a ViT, with LISA's protection against overflow in half precision."""

from functools import partial
from typing import Any

from torch import Tensor, nn

from vllm_csp.sam.neck import apply_neck
from vllm_csp.sam.padding import Convolution, Extent, LocalLayers, LocalStack, Windows
from vllm_csp.sam.upstream import ImageEncoderViT
from vllm_csp.sam.vit_geometry import VitGeometry
from vllm_csp.sam.window_attention import attend


class VitEncoder(ImageEncoderViT):
    """SAM's ViT: normalised pixels to image embeddings.

    Parameter names are upstream's, attention is `window_attention`'s.
    Upstream: segment-anything `modeling/image_encoder.py`.
    """

    def __init__(self, geometry: VitGeometry) -> None:
        super().__init__(
            img_size=geometry.image_size,
            patch_size=geometry.patch_size,
            embed_dim=geometry.embed_dim,
            depth=geometry.depth,
            num_heads=geometry.num_heads,
            mlp_ratio=geometry.mlp_ratio,
            out_chans=geometry.out_channels,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=geometry.window_size,
            global_attn_indexes=geometry.global_attention_indexes,
        )
        windowed = geometry.depth if geometry.window_size else 0
        self._first_global = min(geometry.global_attention_indexes, default=windowed)
        sight: list[Convolution | Windows] = [
            Convolution(geometry.patch_size, geometry.patch_size, 0)
        ]
        if self._first_global > 0:
            sight.append(Windows(geometry.window_size))
        self.local = LocalStack([LocalLayers(self._before_global, sight)])

    def forward(self, pixels: Tensor, seen: Extent | None = None) -> Tensor:
        """Encode a batch of images.

        `pixels`: [B, 3, S, S], normalised and padded, in the dtype of the weights. `seen`: the rows
        and columns beyond which all is padding, if that is known.
        Returns: [B, C, S / patch, S / patch], same dtype.
        Raises: ValueError for another S than the geometry's.
        """
        if pixels.shape[2:] != (self.img_size, self.img_size):
            raise ValueError(f"pixels of {list(pixels.shape)} are not of side {self.img_size}")
        tokens = self.local(pixels, seen).permute(0, 2, 3, 1)
        for block in self.blocks[self._first_global :]:
            tokens = _apply_block(block, tokens)
        return apply_neck(self.neck, tokens.permute(0, 3, 1, 2))

    def _before_global(self, pixels: Tensor) -> Tensor:
        """The layers in which a window sees nothing but itself: [B, 3, H, W] -> [B, D, h, w]."""
        # Upstream's patches lie channel by channel: every norm would copy them, every sum be slow.
        tokens: Tensor = self.patch_embed(pixels).contiguous()
        tokens = tokens + self.pos_embed[:, : tokens.shape[1], : tokens.shape[2]]
        for block in self.blocks[: self._first_global]:
            tokens = _apply_block(block, tokens)
        return tokens.permute(0, 3, 1, 2)


def _apply_block(block: Any, tokens: Tensor) -> Tensor:
    """[B, h, w, D] -> the same shape."""
    tokens = tokens + attend(block.attn, block.norm1(tokens), block.window_size)
    attended: Tensor = tokens + block.mlp(block.norm2(tokens))
    return attended
