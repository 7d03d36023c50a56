"""Attention of SAM's ViT: in windows or over the whole grid, with relative positions in two parts.

A score is q.k plus what the query gives to the key's row and to the key's column:
s(q, k) = q.k / sqrt(d) + q.R_row(k) + q.R_column(k). Upstream adds the two bias terms to an array
of all scores: 0.5 GB per image and global block in bf16. Here that array never exists; there are
three ways to the same, chosen by `way_for`:

`channels`: the bias terms are further channels of the query, and the key's further channels say
which row and column it is in; scores come out of one matrix product, and are used up in parts.
`fused`: the same channels, in torch's fused kernel.
`biased`: torch's fused kernel on parts of the queries, with the bias of that part as its mask.

Upstream: segment-anything `modeling/image_encoder.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from vllm_csp.sam.upstream import ViTAttention

Way = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]

# Scores that a CPU makes at once: 32 MB in bf16.
SCORES_AT_ONCE = 1 << 24


def attend(attention: ViTAttention, cells: Tensor, window: int) -> Tensor:
    """Self-attention of cells [B, H, W, D] within windows, or of all cells when `window` is 0.

    Where windows stick out of the grid, upstream pads with zeros and computes on them; of those
    cells nothing but the bias of their projections is seen, which is put in their place here.
    """
    batch, height, width, dim = cells.shape
    qkv: Tensor = attention.qkv(cells)
    side = (window, window) if window else (height, width)
    padded = (-(-height // side[0]) * side[0], -(-width // side[1]) * side[1])
    if padded != (height, width):
        bias = attention.qkv.bias
        full = bias.expand(batch, *padded, -1).clone()
        full[:, :height, :width] = qkv
        qkv = full
    rows, columns = padded[0] // side[0], padded[1] // side[1]
    # [B, rows, side, columns, side, 3, heads, d] -> [3, B, rows, columns, heads, side, side, d]
    qkv = qkv.view(batch, rows, side[0], columns, side[1], 3, attention.num_heads, -1)
    query, key, value = qkv.permute(5, 0, 1, 3, 6, 2, 4, 7).flatten(1, 4)
    seen = _scaled(attention, query, key, value)
    seen = seen.view(batch, rows, columns, attention.num_heads, *side, -1)
    seen = seen.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, *padded, dim)
    attended: Tensor = attention.proj(seen[:, :height, :width])
    return attended


def way_for(cells: Tensor) -> Way:
    """The way that first ratios speak for; `vllm-csp bench encode --ways` measures them properly.

    On a CPU with matrix units bf16 products are so fast that the fused kernel is behind them; in
    fp32 wider keys cost more than a mask.
    """
    # On "meta", where operations are counted, the way that does none beside the necessary ones.
    if cells.device.type not in ("cpu", "meta"):
        return _fused
    return _biased if cells.dtype in (torch.float32, torch.float64) else _channels


def _scaled(attention: ViTAttention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention of [N, h, w, d], N windows and heads; returns [N, h * w, d]."""
    height, width = query.shape[1:3]
    by_row = torch.einsum("nhwd,hkd->nhwk", query, _distances(attention.rel_pos_h, height))
    by_column = torch.einsum("nhwd,wkd->nhwk", query, _distances(attention.rel_pos_w, width))
    way = way_for(query)
    return way(query * attention.scale, key.flatten(1, 2), value.flatten(1, 2), by_row, by_column)


def _channels(
    query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor
) -> Tensor:
    """Query [N, h, w, d]; key, value [N, h * w, d]; bias [N, h, w, h] and [N, h, w, w]."""
    query, key = _widened(query, key, by_row, by_column)
    count, cells, _ = query.shape
    seen = query.new_empty(count, cells, value.shape[-1])
    together = max(1, SCORES_AT_ONCE // cells**2)
    step = min(cells, max(1, SCORES_AT_ONCE // cells))
    for first in range(0, count, together):
        some = slice(first, first + together)
        keys, values = key[some].transpose(1, 2), value[some]
        for start in range(0, cells, step):
            part = slice(start, start + step)
            weights = torch.bmm(query[some, part], keys).softmax(dim=-1)
            seen[some, part] = torch.bmm(weights, values)
    return seen


def _fused(query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """See `_channels`. The kernel wants values as wide as keys."""
    query, key = _widened(query, key, by_row, by_column)
    width = value.shape[-1]
    value = functional.pad(value, (0, key.shape[-1] - width))
    # Heads and windows lie side by side: the kernel is given all of them as heads of one image.
    query, key, value = query[None], key[None], value[None]
    seen = functional.scaled_dot_product_attention(query, key, value, scale=1.0)
    return seen[0, ..., :width]


def _biased(query: Tensor, key: Tensor, value: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """See `_channels`."""
    count, height, width, _ = query.shape
    cells = height * width
    seen = []
    for some in range(0, count, max(1, SCORES_AT_ONCE // cells**2)):
        heads = slice(some, some + max(1, SCORES_AT_ONCE // cells**2))
        step = max(1, SCORES_AT_ONCE // (cells * width))
        rows = [
            functional.scaled_dot_product_attention(
                query[None, heads, start : start + step].flatten(2, 3),
                key[None, heads],
                value[None, heads],
                _bias(by_row[heads, start : start + step], by_column[heads, start : start + step]),
                scale=1.0,
            )
            for start in range(0, height, step)
        ]
        seen.append(torch.cat(rows, dim=2)[0])
    return torch.cat(seen)


def _bias(by_row: Tensor, by_column: Tensor) -> Tensor:
    """[N, n, w, h] and [N, n, w, w] -> [1, N, n * w, h * w]."""
    return (by_row.unsqueeze(-1) + by_column.unsqueeze(-2)).flatten(3).flatten(1, 2)[None]


def _widened(
    query: Tensor, key: Tensor, by_row: Tensor, by_column: Tensor
) -> tuple[Tensor, Tensor]:
    """Query and key [N, h * w, E], whose products are the scores with their bias."""
    count, height, width, dim = query.shape
    # A multiple of 8, which fused kernels want.
    spare = -(dim + height + width) % 8
    nothing = query.new_zeros(count, height, width, spare)
    wide = torch.cat((query, by_row, by_column, nothing), dim=-1).flatten(1, 2)
    place = _places(height, width, spare, key.device, key.dtype).expand(count, -1, -1)
    return wide, torch.cat((key, place), dim=-1)


def _distances(table: Tensor, side: int) -> Tensor:
    """A learned vector per distance [2 * side - 1, d] as one per pair [side, side, d]."""
    place = torch.arange(side, device=table.device)
    return table[place[:, None] - place + side - 1]


@lru_cache(maxsize=8)
def _places(
    height: int, width: int, spare: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """[h * w, h + w + spare]: one in the channel of a cell's row, and in that of its column."""
    rows = torch.eye(height, device=device, dtype=dtype).repeat_interleave(width, dim=0)
    columns = torch.eye(width, device=device, dtype=dtype).repeat(height, 1)
    return torch.cat((rows, columns, columns.new_zeros(len(columns), spare)), dim=1)
