"""Scores image tokens by single rows' attention, beside the fused kernel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from vllm.distributed import (
    get_tensor_model_parallel_world_size,
    tensor_model_parallel_all_reduce,
)

from vllm_csp.device_copy import on_device
from vllm_csp.tokens.score_rows import ScoreRows
from vllm_csp.tokens.selectors import ScoreSpec, readout_attention_scores


class RowScorer:
    """Scores image tokens by rows' attention, in the layers it is attached to.

    `scores` [P, image tokens of the stage] is the sum over those layers; of the mean, if each image
    has several rows.
    """

    def __init__(self, rows: Sequence[ScoreRows], spec: ScoreSpec, device: torch.device) -> None:
        self.spec = spec
        self.scores: Tensor | None = None
        self._rows = [
            (
                on_device(one.query, device),
                on_device(one.keys, device),
                on_device(one.key_mask, device),
                on_device(one.image_columns, device),
            )
            for one in rows
        ]

    def __call__(self, query: Tensor, key: Tensor, scale: float) -> None:
        """query [T, H, d], key [T, Hkv, d] of this rank's heads."""
        each = [
            readout_attention_scores(
                query[row],
                key[keys],
                key_mask,
                image_columns,
                scale=scale,
                softmax=self.spec.softmax,
            )
            for row, keys, key_mask, image_columns in self._rows
        ]
        scores = torch.stack(each).mean(dim=0)
        if (ranks := get_tensor_model_parallel_world_size()) > 1:
            scores = tensor_model_parallel_all_reduce(scores) / ranks
        self.scores = scores if self.scores is None else self.scores + scores
