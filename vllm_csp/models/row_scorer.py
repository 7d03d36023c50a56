"""Scores image tokens by one row's attention, beside the fused kernel."""

from __future__ import annotations

import torch
from torch import Tensor
from vllm.distributed import (
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_reduce,
)

from vllm_csp.tokens.plan import ScoreRows, on_device
from vllm_csp.tokens.selectors import ScoreSpec, readout_attention_scores


class RowScorer:
    """Scores image tokens by one row's attention, in the layers it is attached to.

    `scores` [P, image tokens of the stage] is the sum over those layers.
    """

    def __init__(self, rows: ScoreRows, spec: ScoreSpec, device: torch.device) -> None:
        self.spec = spec
        self.scores: Tensor | None = None
        self._query = on_device(rows.query, device)
        self._keys = on_device(rows.keys, device)
        self._key_mask = on_device(rows.key_mask, device)
        self._image_columns = on_device(rows.image_columns, device)

    def __call__(self, query: Tensor, key: Tensor, scale: float) -> None:
        """query [T, H, d], key [T, Hkv, d] of this rank's heads."""
        scores = readout_attention_scores(
            query[self._query],
            key[self._keys],
            self._key_mask,
            self._image_columns,
            scale=scale,
            softmax=self.spec.softmax,
        )
        if (ranks := get_tensor_model_parallel_world_size()) > 1:
            scores = tensor_model_parallel_all_reduce(scores) / ranks
        self.scores = scores if self.scores is None else self.scores + scores
