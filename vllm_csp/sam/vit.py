"""SAM's own image encoder, a ViT, with LISA's protection against overflow in half precision."""

from functools import partial

from torch import Tensor, nn

from vllm_csp.sam.neck import apply_neck
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

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode a batch of images.

        `pixels`: [B, 3, S, S], normalised and padded, in the dtype of the weights.
        Returns: [B, C, S / patch, S / patch], same dtype.
        """
        # Upstream's patches lie channel by channel: every norm would copy them, every sum be slow.
        tokens: Tensor = self.patch_embed(pixels).contiguous() + self.pos_embed
        for block in self.blocks:
            tokens = tokens + attend(block.attn, block.norm1(tokens), block.window_size)
            tokens = tokens + block.mlp(block.norm2(tokens))
        return apply_neck(self.neck, tokens.permute(0, 3, 1, 2))
