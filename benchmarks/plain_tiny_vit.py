"""MobileSAM's encoder step by step, as its published code runs it, on the weights of ours.

Each convolution, norm, activation and residual is an operation of its own, on channels-first
memory; attention makes all scores, adds the bias to them and takes their softmax. Facts from
arXiv 2207.10666 and MobileSAM's `tiny_vit_sam.py`, none of the code.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from vllm_csp.sam.conv_norm import ConvNorm
from vllm_csp.sam.tiny_vit import (
    AttentionBlock,
    AttentionStage,
    ConvStage,
    Downsample,
    InvertedBottleneck,
    TinyVitEncoder,
    WindowAttention,
)


def encode_plainly(encoder: TinyVitEncoder, pixels: Tensor) -> Tensor:
    """Embeddings [B, C, S / 16, S / 16] of normalised pixels [B, 3, S, S]."""
    first, _, second = encoder.patch_embed.seq
    features = _conv(second, functional.gelu(_conv(first, pixels)))
    for stage in encoder.layers:
        if isinstance(stage, ConvStage):
            for block in stage.blocks:
                features = _bottleneck(block, features)
            features = _downsample(stage.downsample, features)
        elif isinstance(stage, AttentionStage):
            for block in stage.blocks:
                features = _attention_block(block, features)
            if stage.downsample is not None:
                features = _downsample(stage.downsample, features)
    embeddings: Tensor = encoder.neck(features)
    return embeddings


def _conv(module: nn.Module, features: Tensor) -> Tensor:
    assert isinstance(module, ConvNorm)
    convolved: Tensor = module.c(features)
    return convolved if module.bn is None else module.bn(convolved)


def _bottleneck(block: nn.Module, features: Tensor) -> Tensor:
    assert isinstance(block, InvertedBottleneck)
    hidden = functional.gelu(_conv(block.conv1, features))
    hidden = functional.gelu(_conv(block.conv2, hidden))
    return functional.gelu(features + _conv(block.conv3, hidden))


def _downsample(step: Downsample, features: Tensor) -> Tensor:
    hidden = functional.gelu(_conv(step.conv1, features))
    return _conv(step.conv3, functional.gelu(_conv(step.conv2, hidden)))


def _attention_block(block: nn.Module, features: Tensor) -> Tensor:
    assert isinstance(block, AttentionBlock)
    batch, dim, height, width = features.shape
    cells = features.flatten(2).transpose(1, 2)
    cells = cells + _in_windows(block, cells.reshape(batch, height, width, dim))
    features = cells.transpose(1, 2).reshape(batch, dim, height, width)
    cells = _conv(block.local_conv, features).view(batch, dim, -1).transpose(1, 2)
    cells = cells + block.mlp(cells)
    return cells.transpose(1, 2).reshape(batch, dim, height, width)


def _in_windows(block: AttentionBlock, cells: Tensor) -> Tensor:
    """Attention of cells [B, H, W, dim]; returns [B, H * W, dim]."""
    batch, height, width, dim = cells.shape
    side = block.window
    padded = functional.pad(cells, (0, 0, 0, -width % side, 0, -height % side))
    rows, columns = padded.shape[1] // side, padded.shape[2] // side
    windows = padded.view(batch, rows, side, columns, side, dim).transpose(2, 3)
    seen = _attend(block.attn, windows.reshape(-1, side * side, dim))
    seen = seen.view(batch, rows, columns, side, side, dim).transpose(2, 3)
    seen = seen.reshape(batch, rows * side, columns * side, dim)[:, :height, :width]
    return seen.reshape(batch, height * width, dim)


def _attend(attention: WindowAttention, cells: Tensor) -> Tensor:
    windows, size, dim = cells.shape
    qkv = attention.qkv(attention.norm(cells)).view(windows, size, attention.heads, -1)
    query, key, value = (part.transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5 + attention._bias()
    seen = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(windows, size, dim)
    projected: Tensor = attention.proj(seen)
    return projected
