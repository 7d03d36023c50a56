"""A [SEG] row behind each prompt, to score image tokens by what it would attend to."""

from __future__ import annotations

import torch
from torch import Tensor

from vllm_csp.device_copy import on_device
from vllm_csp.tokens.score_rows import ScoreRows


class SegProbe:
    """One row per image prefill in the layers of a stage, at the position after its prompt.

    It sees the prompt's rows and itself; nothing sees it, it has no KV slot, and it is gone after
    the step. Its states are those of a [SEG] in a forced answer, or of one sampled next.
    """

    def __init__(self, rows: ScoreRows, device: torch.device) -> None:
        """rows: from `ScoreRows.followed`."""
        self.num_probes = len(rows.query)
        self._keys = on_device(rows.keys, device)
        self._key_mask = on_device(rows.key_mask, device)

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of the probes, beside the fused kernel: [P, H * d].

        query [P, H, d] of the probes; key and value [T + P, Hkv, d] of all rows.
        """
        probes, heads, width = query.shape
        kv_heads = key.shape[1]
        grouped = query.float().reshape(probes, kv_heads, heads // kv_heads, width)
        logits = torch.einsum("bkgd,bskd->bkgs", grouped, key[self._keys].float()) * scale
        logits = logits.masked_fill(~self._key_mask[:, None, None], float("-inf"))
        held = value[self._keys].float()
        output = torch.einsum("bkgs,bskd->bkgd", logits.softmax(dim=3), held)
        return output.reshape(probes, heads * width).to(query.dtype)
