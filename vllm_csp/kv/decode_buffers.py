"""Where a stage's lengths and slots of decoding steps lie: in every step at the same place.

A captured CUDA graph reads what lies there when it is replayed; a step writes it there before.
"""

from __future__ import annotations

import torch
from torch import Tensor
from vllm.v1.attention.backends.utils import PAD_SLOT_ID


class DecodeBuffers:
    """Lengths int32 [rows] and slots int64 [rows] of up to `rows` requests, each of one token."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self._seq_lens = torch.zeros(rows, dtype=torch.int32, device=device)
        self._slots = torch.full((rows,), PAD_SLOT_ID, dtype=torch.int64, device=device)

    def hold(self, seq_lens: Tensor, slots: Tensor, num_tokens: int) -> tuple[Tensor, Tensor]:
        """A step's values at their place: lengths [R] and slots [num_tokens].

        `seq_lens`: [R]; `slots`: of the rows that are no padding, at most `num_tokens`. What pads a
        step to the size of a graph writes to no slot. Nothing waits for the device.
        """
        rows = len(slots)
        self._seq_lens[: len(seq_lens)].copy_(seq_lens, non_blocking=True)
        self._slots[:rows].copy_(slots, non_blocking=True)
        self._slots[rows:num_tokens].fill_(PAD_SLOT_ID)
        return self._seq_lens[: len(seq_lens)], self._slots[:num_tokens]
