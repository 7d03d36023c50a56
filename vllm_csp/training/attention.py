"""Attention of the packed sequences: who sees whom, and where single heads look.

Written out as products of bf16 matrices: on a CPU the fused kernel takes three times as long for
sequences of these sizes, backward above all, and it keeps no weights to train on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from transformers import AttentionInterface

from vllm_csp.training.packing import Packed
from vllm_csp.training.shape import MiniShape

NAME = "vllm_csp_written_out"

FILLED = 0.2
"""Share of a patch from which on a thing is there."""


def written_out(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Attention of query, key, value [B, heads, L, D]: output [B, L, heads, D], weights."""
    batch, heads, length, width = query.shape
    with torch.autocast(query.device.type, enabled=False):
        # Rotary positions leave queries and keys in fp32.
        flat = [
            part.to(value.dtype).reshape(batch * heads, length, width)
            for part in (query, key, value)
        ]
        mask = attention_mask.to(value.dtype).expand(-1, heads, -1, -1).flatten(0, 1)
        scores = torch.baddbmm(mask, flat[0], flat[1].transpose(1, 2), alpha=scaling)
        weights = torch.softmax(scores, dim=-1)
        output = torch.bmm(weights, flat[2]).view(batch, heads, length, width)
    return output.transpose(1, 2).contiguous(), weights.view(batch, heads, length, length)


AttentionInterface.register(NAME, written_out)


def attention_mask(owner: Tensor, prefix: int) -> Tensor:
    """Who sees whom, fp32 [B, 1, L, L]: 0 where allowed, the lowest number elsewhere.

    Prefix rows are causal; a segment's row sees the prefix and what precedes it in its segment.
    """
    shared = torch.full((len(owner), prefix), -2, device=owner.device)
    owners = torch.cat([shared, owner], dim=1)
    length = owners.shape[1]
    same = owners.unsqueeze(2) == owners.unsqueeze(1)
    shared_key = (owners == -2).unsqueeze(1)
    causal = torch.ones(length, length, dtype=torch.bool, device=owner.device).tril()
    allowed = (same | shared_key) & causal
    blocked = torch.zeros(allowed.shape, device=owner.device)
    return blocked.masked_fill_(~allowed, -1e30).unsqueeze(1)


Head = tuple[int, int]
"""(layer, head)"""


class Looks:
    """Keeps what supervised heads of a Llama look at, while in a `with` block.

    weights: head -> [B, rows of the segments, image rows].
    """

    def __init__(self, layers: nn.ModuleList, heads: Iterable[Head], image: slice, rows: int):
        """image: the columns of the image rows; rows: how many of the last rows are kept."""
        self.weights: dict[Head, Tensor] = {}
        self._layers, self._heads = layers, list(heads)
        self._image, self._rows = image, rows
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Looks:
        for layer, head in self._heads:
            attention = self._layers[layer].get_submodule("self_attn")
            self._hooks.append(attention.register_forward_hook(self._keeper(layer, head)))
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _keeper(self, layer: int, head: int) -> Callable[[nn.Module, Any, Any], None]:
        def keep(_module: nn.Module, _inputs: Any, outputs: tuple[Tensor, Tensor]) -> None:
            self.weights[layer, head] = outputs[1][:, head, -self._rows :, self._image]

        return keep


def look_loss(weights: Mapping[Head, Tensor], batch: Packed, shape: MiniShape) -> Tensor:
    """-log of the weight that supervised heads give to the patches they should look at.

    weights: as `Looks.weights`; empty if no image was seen.
    """
    if not weights:
        return torch.zeros(())
    target = batch.grid.flatten(1)
    losses = [
        _missed(weights[head][batch.picture, batch.row], target) for head in shape.target_heads
    ]
    picture, row, word = batch.mentions.unbind(dim=1)
    shown = batch.words[picture, word].flatten(1)
    losses.append(_missed(weights[shape.word_head][picture, row], shown))
    return torch.stack(losses).sum()


def _missed(weights: Tensor, shares: Tensor) -> Tensor:
    """Mean -log of the weights [R, 256] on patches with shares [R, 256], where there are any."""
    inside = shares > FILLED
    there = inside.any(dim=1)
    if not there.any():
        return weights.sum() * 0
    found = (weights.float() * inside).sum(dim=1)[there]
    loss: Tensor = -(found + 1e-4).log().mean()
    return loss
