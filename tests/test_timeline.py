"""What is noted of a worker's steps, and that nothing is when nobody wants it."""

from __future__ import annotations

import time

import pytest
import torch

from tests.gpu_event import Event
from vllm_csp.timeline import MOST_IMAGES, Interval, Timeline


def test_a_forward_pass_has_its_parts() -> None:
    began = time.time_ns()
    timeline = Timeline(enabled=True)
    for _ in range(2):
        with timeline.forward(12):
            for stage in range(2):
                with timeline.part("vllm_csp.stage", stage=stage):
                    time.sleep(0.01)
    first, second, whole = [one.span() for one in timeline.step]
    assert [one["name"] for one in (first, whole)] == ["vllm_csp.stage", "vllm_csp.prefill"]
    assert second["attributes"] == {"vllm_csp.stage": 1}
    assert whole["attributes"] == {"vllm_csp.rows": 12}
    assert began < whole["start"] <= first["start"] < first["end"] <= second["start"]
    assert second["end"] <= whole["end"] <= time.time_ns()
    assert first["end"] - first["start"] >= 10_000_000


def test_an_image_has_its_last_encoding() -> None:
    timeline = Timeline(enabled=True)
    for keys in (["a", "b"], ["b"]):
        with timeline.encoding("sam", keys):
            pass
        with timeline.encoding("clip", keys):
            pass
    assert [one.name for one in timeline.of_image("a")] == ["sam", "clip"]
    assert [one.attributes["vllm_csp.images"] for one in timeline.of_image("b")] == [1, 1]
    for number in range(MOST_IMAGES):
        with timeline.encoding("sam", [str(number)]):
            pass
    assert timeline.of_image("a") == timeline.of_image("b") == []


def test_off_it_notes_nothing() -> None:
    timeline = Timeline(enabled=False)
    found: list[Interval] = []
    with timeline.forward(1), timeline.part("a"), timeline.encoding("b", ["b"]):
        pass
    with timeline.measured("c", found):
        pass
    assert timeline.step == found == timeline.of_image("b") == []


def test_on_a_gpu_encoding_ends_where_its_stream_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(Event, "streams", {"sam's": 40})
    timeline = Timeline(enabled=True)
    with timeline.encoding("sam", ["a"], "sam's"):
        pass
    [sam] = [one.span() for one in timeline.of_image("a")]
    assert sam["end"] - sam["start"] == 39_000_000
    Event.streams["idle"] = 0
    with timeline.encoding("idle", ["b"], "idle"):
        pass
    [idle] = [one.span() for one in timeline.of_image("b")]
    assert idle["end"] == idle["start"], "given nothing, its stream has ended before"
