"""Attention between a few tokens and many pixels, with the pixels' projections folded away.

SAM's decoder attends in both directions between the six tokens of a query and the 4096 cells of an
image. Done literally, keys and values (or queries) of all cells are projected for every query. A
score is linear in the cell, so the projection can be moved onto the tokens instead: with
q_t . (W x_p) = (W^T q_t) . x_p the cells stay as they are, and 8 heads x 6 tokens replace 4096 rows
of projections. The same holds for values. Results differ from upstream's by rounding only.
Upstream: segment-anything `modeling/transformer.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vllm_csp.sam.upstream import Attention, TwoWayTransformer


def two_way(
    transformer: TwoWayTransformer,
    pixels: Tensor,
    pixel_pe: Tensor,
    prompts: Tensor,
    token_read: int,
) -> tuple[Tensor, Tensor]:
    """What `TwoWayTransformer.forward` computes.

    `pixels`: [Q, P, C], the cells of each row's image, overwritten; `pixel_pe`: [P, C].
    `prompts`: [Q, T, C]. Returns: token number `token_read` [Q, C], and cells [Q, P, C].
    """
    tokens, keyed = prompts, pixels + pixel_pe
    for layer in transformer.layers:
        if layer.skip_first_layer_pe:
            tokens = layer.self_attn(q=tokens, k=tokens, v=tokens)
        else:
            placed = tokens + prompts
            tokens = tokens + layer.self_attn(q=placed, k=placed, v=tokens)
        tokens = layer.norm1(tokens)
        tokens = tokens + look_at_pixels(
            layer.cross_attn_token_to_image, tokens + prompts, keyed, pixels
        )
        tokens = layer.norm2(tokens)
        tokens = layer.norm3(tokens + layer.mlp(tokens))
        seen = layer.cross_attn_image_to_token
        pixels = layer.norm4(look_at_tokens(seen, pixels, keyed, tokens + prompts, tokens))
        keyed = pixels + pixel_pe
    final = transformer.final_attn_token_to_image
    read = slice(token_read, token_read + 1)
    tokens, prompts = tokens[:, read], prompts[:, read]
    tokens = tokens + look_at_pixels(final, tokens + prompts, keyed, pixels)
    return transformer.norm_final_attn(tokens)[:, 0], pixels


def look_at_pixels(attention: Attention, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Tokens [Q, T, C] attend to cells [Q, P, C]; returns [Q, T, C]."""
    rows, count, _ = tokens.shape
    queries = _heads(attention.q_proj(tokens), attention.num_heads) * _scale(attention)
    # The keys' bias adds the same to all scores of a token, which softmax does not see.
    folded = torch.matmul(queries, _per_head(attention.k_proj.weight, attention.num_heads))
    scores = torch.bmm(folded.reshape(rows, -1, folded.shape[-1]), keys.transpose(1, 2))
    seen = torch.bmm(scores.softmax(dim=-1), values).view(rows, attention.num_heads, count, -1)
    weight = _per_head(attention.v_proj.weight, attention.num_heads)
    seen = torch.matmul(seen, weight.transpose(1, 2)).transpose(1, 2).flatten(2)
    attended: Tensor = attention.out_proj(seen + attention.v_proj.bias)
    return attended


def look_at_tokens(
    attention: Attention,
    pixels: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
) -> Tensor:
    """Cells attend to tokens; returns `pixels` [Q, P, C] plus what they see, in their place.

    `queries`: [Q, P, C]. `keys`, `values`: [Q, T, C]. With gradients, `pixels` stay as they are.
    """
    rows, count, channels = keys.shape
    heads = attention.num_heads
    own = _heads(attention.k_proj(keys), heads) * _scale(attention)
    folded = torch.matmul(own, _per_head(attention.q_proj.weight, heads))
    offset = torch.matmul(own, attention.q_proj.bias.view(heads, -1, 1))
    # Tokens first, cells last: softmax over the few tokens then runs along whole rows of cells.
    folded = folded.transpose(1, 2).reshape(rows, count * heads, channels)
    offset = offset.transpose(1, 2).reshape(rows, count * heads, 1)
    scores = torch.baddbmm(offset, folded, queries.transpose(1, 2))
    weights = scores.view(rows, count, -1).softmax(dim=1).view_as(scores)
    shown = _heads(attention.v_proj(values), heads)
    projection = attention.out_proj.weight.view(channels, heads, -1).permute(1, 2, 0)
    # Weights of a head sum to 1, so every head can bring its part of the bias.
    shown = torch.matmul(shown, projection) + attention.out_proj.bias / heads
    shown = shown.transpose(1, 2).reshape(rows, count * heads, channels)
    out = None if torch.is_grad_enabled() else pixels
    return torch.baddbmm(pixels, weights.transpose(1, 2), shown, out=out)


def _heads(rows: Tensor, heads: int) -> Tensor:
    """[Q, T, heads * d] -> [Q, heads, T, d]."""
    return rows.view(*rows.shape[:2], heads, -1).transpose(1, 2)


def _per_head(weight: Tensor, heads: int) -> Tensor:
    """A projection's weight [heads * d, C] -> [heads, d, C]."""
    return weight.view(heads, -1, weight.shape[-1])


def _scale(attention: Attention) -> float:
    return 1 / math.sqrt(attention.internal_dim // attention.num_heads)
