"""The classes of the `segment-anything` package that this package builds on.

Symptom: `import segment_anything.modeling` first runs `segment_anything/__init__.py`, which imports
torchvision for the predictor and the automatic mask generator. Next to a CPU torch there is no
working torchvision on PyPI, so the import raises (`No module named 'torchvision'`, or
`operator torchvision::nms does not exist`) although `modeling` needs torch alone.

The work-around applies only when the plain import fails: a bare package entry takes the place of
`segment_anything` while `modeling` is imported, and is taken out again so that a later
`import segment_anything` still shows its true error. It can go once segment-anything imports
torchvision lazily, or once every supported torch has a matching torchvision.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

PACKAGE = "segment_anything"


def import_modeling() -> ModuleType:
    """Import `segment_anything.modeling`, with or without a working torchvision.

    Returns: the module.
    Raises: ImportError when the package `segment-anything` is not installed.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ImportError("SAM needs the package segment-anything: pip install segment-anything")
    try:
        return importlib.import_module(f"{PACKAGE}.modeling")
    except (ImportError, RuntimeError):
        sys.modules[PACKAGE] = importlib.util.module_from_spec(spec)
        try:
            return importlib.import_module(f"{PACKAGE}.modeling")
        finally:
            del sys.modules[PACKAGE]


if TYPE_CHECKING:
    # segment-anything carries no types: these are the parts used here.
    class ImageEncoderViT(nn.Module):
        """Upstream `modeling/image_encoder.py`."""

        img_size: int
        patch_embed: nn.Module
        pos_embed: nn.Parameter
        blocks: Any
        neck: nn.Sequential

        def __init__(
            self,
            *,
            img_size: int,
            patch_size: int,
            embed_dim: int,
            depth: int,
            num_heads: int,
            mlp_ratio: float,
            out_chans: int,
            norm_layer: Callable[..., nn.Module],
            use_rel_pos: bool,
            window_size: int,
            global_attn_indexes: tuple[int, ...],
        ) -> None: ...

    class ViTAttention(nn.Module):
        """Upstream `modeling/image_encoder.py`, `Attention`."""

        num_heads: int
        scale: float
        qkv: nn.Linear
        proj: nn.Linear
        rel_pos_h: nn.Parameter
        rel_pos_w: nn.Parameter

    class LayerNorm2d(nn.Module):
        """Upstream `modeling/common.py`."""

        def __init__(self, num_channels: int) -> None: ...

    class PositionEmbeddingRandom(nn.Module):
        """Upstream `modeling/prompt_encoder.py`."""

        positional_encoding_gaussian_matrix: Tensor

        def __init__(self, num_pos_feats: int) -> None: ...

    class PromptEncoder(nn.Module):
        """Upstream `modeling/prompt_encoder.py`."""

        pe_layer: PositionEmbeddingRandom
        no_mask_embed: nn.Embedding
        image_embedding_size: tuple[int, int]

        def __init__(
            self,
            *,
            embed_dim: int,
            image_embedding_size: tuple[int, int],
            input_image_size: tuple[int, int],
            mask_in_chans: int,
        ) -> None: ...

    class Attention(nn.Module):
        """Upstream `modeling/transformer.py`."""

        num_heads: int
        internal_dim: int
        q_proj: nn.Linear
        k_proj: nn.Linear
        v_proj: nn.Linear
        out_proj: nn.Linear

    class TwoWayAttentionBlock(nn.Module):
        """Upstream `modeling/transformer.py`."""

        self_attn: Any
        norm1: nn.LayerNorm
        cross_attn_token_to_image: Attention
        norm2: nn.LayerNorm
        mlp: nn.Module
        norm3: nn.LayerNorm
        norm4: nn.LayerNorm
        cross_attn_image_to_token: Attention
        skip_first_layer_pe: bool

    class TwoWayTransformer(nn.Module):
        """Upstream `modeling/transformer.py`."""

        layers: Any  # of TwoWayAttentionBlock
        final_attn_token_to_image: Attention
        norm_final_attn: nn.LayerNorm

        def __init__(
            self, *, depth: int, embedding_dim: int, num_heads: int, mlp_dim: int
        ) -> None: ...

        def __call__(
            self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor
        ) -> tuple[Tensor, Tensor]: ...

    class MaskDecoder(nn.Module):
        """Upstream `modeling/mask_decoder.py`."""

        transformer: TwoWayTransformer
        iou_token: nn.Embedding
        mask_tokens: nn.Embedding
        output_upscaling: Any
        output_hypernetworks_mlps: nn.ModuleList
        iou_prediction_head: nn.Module

        def __init__(
            self,
            *,
            transformer_dim: int,
            transformer: nn.Module,
            num_multimask_outputs: int,
            iou_head_depth: int,
            iou_head_hidden_dim: int,
        ) -> None: ...

else:
    _modeling = import_modeling()
    ImageEncoderViT = _modeling.ImageEncoderViT
    ViTAttention = _modeling.image_encoder.Attention
    PromptEncoder = _modeling.PromptEncoder
    PositionEmbeddingRandom = _modeling.prompt_encoder.PositionEmbeddingRandom
    TwoWayTransformer = _modeling.TwoWayTransformer
    Attention = _modeling.transformer.Attention
    MaskDecoder = _modeling.MaskDecoder
    LayerNorm2d = _modeling.image_encoder.LayerNorm2d
