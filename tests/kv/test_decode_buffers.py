"""Lengths and slots of decoding steps lie where they lay before."""

from __future__ import annotations

import torch
from vllm.v1.attention.backends.utils import PAD_SLOT_ID

from vllm_csp.kv.decode_buffers import DecodeBuffers


def hold(buffers: DecodeBuffers, lengths: list[int], slots: list[int], num_tokens: int) -> tuple:
    return buffers.hold(torch.tensor(lengths, dtype=torch.int32), torch.tensor(slots), num_tokens)


def test_values_of_every_step_lie_at_the_same_place() -> None:
    buffers = DecodeBuffers(8, torch.device("cpu"))
    lengths, slots = hold(buffers, [5, 6, 0], [70, 80], 3)
    places = lengths.data_ptr(), slots.data_ptr()
    assert lengths.tolist() == [5, 6, 0]
    again = hold(buffers, [7, 9, 4], [71, 81, 91], 3)
    assert tuple(one.data_ptr() for one in again) == places
    assert lengths.tolist() == [7, 9, 4]
    assert slots.tolist() == [71, 81, 91]


def test_padding_writes_to_no_slot_also_after_a_larger_step() -> None:
    buffers = DecodeBuffers(8, torch.device("cpu"))
    hold(buffers, [1] * 8, list(range(8)), 8)
    lengths, slots = hold(buffers, [3, 0, 0, 0], [40], 4)
    assert lengths.tolist() == [3, 0, 0, 0]
    assert slots.tolist() == [40, *[PAD_SLOT_ID] * 3]
