"""Side products of the vision tower for selectors: CLS attention and key projections.

vLLM's encoder cache holds one tensor per image, so they ride behind the image rows' columns and are
split off before the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig
from vllm.distributed import (
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_gather,
    tensor_model_parallel_all_reduce,
)

from vllm_csp.tokens import Schedule


class VisionProbe:
    """Watches the last layer of the tower that runs, if a selector of the schedule asks for it.

    Source of the rule: CLS attention of the layer that the features come from (the penultimate one
    for LISA), head mean; keys of the same layer (PruMerge, arXiv 2403.15388).
    """

    def __init__(self, vision_tower: Any, schedule: Schedule | None) -> None:
        stages = () if schedule is None else schedule.stages
        needs = {need for stage in stages for need in stage.selector.needs}
        self.wants_cls = bool(needs & {"cls_attention", "key_features"})
        self.wants_keys = "key_features" in needs
        self._normed: Tensor | None = None
        if self.wants_cls:
            self._layer = vision_tower.vision_model.encoder.layers[-1]
            self._layer.layer_norm1.register_forward_hook(self._remember)

    def _remember(self, module: Any, args: Any, output: Tensor) -> None:
        self._normed = output

    def ride(self, rows: Tensor) -> Tensor:
        """Image rows [B, N, D] -> [B, N, D + extra columns] for the encoder cache."""
        if not self.wants_cls:
            return rows
        cls_attention, keys = self._measure()
        columns = [rows, cls_attention[..., None].to(rows.dtype)]
        return torch.cat([*columns, keys.to(rows.dtype)] if self.wants_keys else columns, dim=-1)

    def split(
        self, rows: Sequence[Tensor] | Tensor, config: LlamaConfig
    ) -> tuple[list[Tensor], Tensor | None, Tensor | None]:
        """Undo `ride` for a step's images [N, columns]: rows, CLS attention [P, N], keys."""
        hidden = config.hidden_size
        plain = [one[:, :hidden] for one in rows]
        if not self.wants_cls or not plain:
            return plain, None, None
        extras = torch.stack([one[:, hidden:] for one in rows])
        return plain, extras[..., 0].float(), extras[..., 1:] if self.wants_keys else None

    def _measure(self) -> tuple[Tensor, Tensor]:
        """CLS attention [B, N] and keys [B, N, Dk] of the patches, over all ranks."""
        normed, self._normed = self._normed, None
        assert normed is not None, "the vision tower has not run"
        attention = self._layer.self_attn
        qkv, _ = attention.qkv_proj(normed)
        query, key, _ = qkv.chunk(3, dim=-1)
        heads = attention.num_heads_per_partition
        split_query = query[:, 0].unflatten(-1, (heads, -1))
        split_key = key.unflatten(-1, (heads, -1))
        logits = torch.einsum("bhd,bshd->bhs", split_query.float(), split_key.float())
        scores = (logits * attention.scale).softmax(dim=-1).mean(dim=1)[:, 1:]
        patches = key[:, 1:]
        ranks = get_tensor_model_parallel_world_size()
        if ranks > 1:
            scores = tensor_model_parallel_all_reduce(scores) / ranks
            patches = tensor_model_parallel_all_gather(patches)
        return scores, patches
