"""Waits for a GPU are counted by place, through the hook that vLLM puts around a step."""

from __future__ import annotations

import warnings

import pytest
import torch
from vllm.utils import gpu_sync_debug

from benchmarks.waits import MARKS, counted_waits, told


def test_what_vllms_check_says_within_a_step_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[object] = []
    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(gpu_sync_debug, "_SYNC_CHECK_MODE", "warn")
    monkeypatch.setattr(gpu_sync_debug, "_sync_check_enabled", True)

    @gpu_sync_debug.with_gpu_sync_check
    def step() -> None:
        for _ in range(2):
            warnings.warn(f"{MARKS[0]} (as torch says)", stacklevel=1)
        warnings.warn(f"{MARKS[1]} detected", stacklevel=1)
        with gpu_sync_debug.gpu_sync_allowed():
            warnings.warn(f"{MARKS[0]} where it may", stacklevel=1)
        warnings.warn("something else", stacklevel=1)

    with counted_waits() as waits:
        step()
        step()
    assert modes == ["warn", 0] * 2
    assert sorted(waits.values()) == [2, 4], "in two places, the allowed one is none"
    assert told(waits, 1).startswith("tests/benchmarks/test_waits.py:")
    assert told(waits, 1).endswith(" x 4")


def test_the_marks_are_those_of_torch_and_vllm() -> None:
    assert MARKS[0] == gpu_sync_debug._TORCH_SYNC_WARNING
    assert MARKS[1] in gpu_sync_debug.IMPLICIT_SYNC_ERROR_MESSAGE
