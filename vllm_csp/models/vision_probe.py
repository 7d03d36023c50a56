"""What selectors need of an image beside its rows: CLS attention, keys, superpixels.

vLLM's encoder cache holds one tensor per image, so they ride behind the image rows' columns and are
split off before the language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.distributed import (
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_gather,
    tensor_model_parallel_all_reduce,
)

from vllm_csp.models.superpixels import COUNT, token_superpixels
from vllm_csp.schedules import vision_needs
from vllm_csp.tokens import Schedule


@dataclass(frozen=True)
class ImageExtras:
    """Of P images with N tokens, as far as the schedule needs them.

    cls_attention [P, N], key_features [P, N, Dk], instance_masks bool [P, M, N].
    """

    cls_attention: Tensor | None = None
    key_features: Tensor | None = None
    instance_masks: Tensor | None = None


class VisionProbe:
    """Watches the last layer of the tower that runs, if a selector of the schedule asks for it.

    Source of the rule: CLS attention of the layer that the features come from (the penultimate one
    for LISA), head mean; keys of the same layer (PruMerge, arXiv 2403.15388). Instances are
    superpixels: no segmenter runs before the language model.
    """

    def __init__(self, vision_tower: Any, schedule: Schedule | None) -> None:
        needs = set() if schedule is None else vision_needs(schedule)
        self.wants_cls = bool(needs & {"cls_attention", "key_features"})
        self.wants_keys = "key_features" in needs
        self.wants_instances = "instance_masks" in needs
        self._grid = (0, 0) if schedule is None else schedule.grid
        self._normed: Tensor | None = None
        if self.wants_cls:
            self._layer = vision_tower.vision_model.encoder.layers[-1]
            self._layer.layer_norm1.register_forward_hook(self._remember)

    def _remember(self, module: Any, args: Any, output: Tensor) -> None:
        self._normed = output

    def ride(self, rows: Tensor, pixels: Tensor) -> Tensor:
        """Image rows [B, N, D] -> [B, N, D + extra columns] for the encoder cache.

        pixels: uint8 [B, S, S, 3], what the tower saw.
        """
        columns = [rows]
        if self.wants_instances:
            labels = token_superpixels(pixels, self._grid)
            columns.append(labels[..., None].to(rows.dtype))
        if self.wants_cls:
            cls_attention, keys = self._measure()
            columns.append(cls_attention[..., None].to(rows.dtype))
            columns += [keys.to(rows.dtype)] if self.wants_keys else []
        return torch.cat(columns, dim=-1) if len(columns) > 1 else rows

    def split(
        self, rows: Sequence[Tensor] | Tensor, hidden_size: int
    ) -> tuple[list[Tensor], ImageExtras]:
        """Undo `ride` for a step's images [N, columns] each."""
        plain = [one[:, :hidden_size] for one in rows]
        if not plain or rows[0].shape[1] == hidden_size:
            return plain, ImageExtras()
        extras = torch.stack([one[:, hidden_size:] for one in rows])
        masks, attention, keys = None, None, None
        if self.wants_instances:
            # Small whole numbers are exact in every dtype.
            labels, extras = extras[..., 0].round().long(), extras[..., 1:]
            masks = torch.nn.functional.one_hot(labels, COUNT).transpose(1, 2).bool()
        if self.wants_cls:
            attention = extras[..., 0].float()
            keys = extras[..., 1:] if self.wants_keys else None
        return plain, ImageExtras(attention, keys, masks)

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
        # Contiguous, because the collectives read memory as it lies.
        scores = (logits * attention.scale).softmax(dim=-1).mean(dim=1)[:, 1:].contiguous()
        patches = key[:, 1:].contiguous()
        ranks = get_tensor_model_parallel_world_size()
        if ranks > 1:
            scores = tensor_model_parallel_all_reduce(scores) / ranks
            patches = tensor_model_parallel_all_gather(patches)
        return scores, patches
