"""Seconds of SAM's encoder: what it took, not what it took to ask for it."""

from __future__ import annotations

import time

import pytest
import torch

from tests.gpu_event import Event
from vllm_csp.sam.encode_clock import EncodeClock


def test_on_a_cpu_it_is_the_time() -> None:
    clock = EncodeClock()
    for _ in range(2):
        with clock.running(torch.device("cpu")):
            time.sleep(0.02)
    assert 0.04 <= clock.seconds() < 1


def test_on_a_gpu_it_is_the_streams_and_counts_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Event, "streams", {})
    monkeypatch.setattr(Event, "over", 2)
    clock = EncodeClock()
    for _ in range(2):
        with clock.running(torch.device("cuda")):
            Event(enable_timing=True).record()  # what takes the time
    assert clock.seconds() == 0
    monkeypatch.setattr(Event, "over", 5)
    assert clock.seconds() == clock.seconds() == pytest.approx(0.002)
    monkeypatch.setattr(Event, "over", 6)
    assert clock.seconds() == pytest.approx(0.004)
