"""An engine whose image encoder is as late as a stream of its own may be: masks are the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.models.mini_engine import engine, ious_to_loop
from tests.sam.late_stream import LateStreams
from vllm_csp.config import CspConfig
from vllm_csp.models import sam_source
from vllm_csp.sam.encode_stream import EncodeStream

LEAST_IOU = 0.99


def test_masks_of_an_engine_do_not_miss_what_comes_late(monkeypatch: pytest.MonkeyPatch) -> None:
    # Tensors on a CPU know no streams.
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: None)
    with engine() as segmenter:
        segmenter.llm.apply_model(encode_late)
        assert min(ious_to_loop(segmenter)) > LEAST_IOU
        [(happened, ended_on)] = segmenter.llm.apply_model(what_happened)
    assert happened == [1], "one picture, encoded beside the language model"
    assert ended_on == [True], "its span ends there, too"


@pytest.mark.parametrize(
    ("on_gpu", "settings", "streams"),
    [
        (True, {}, torch.cuda),
        (True, {"sam_own_stream": False}, None),
        (False, {}, None),
    ],
)
def test_only_a_gpu_has_a_stream_for_it(
    monkeypatch: pytest.MonkeyPatch, on_gpu: bool, settings: dict[str, Any], streams: Any
) -> None:
    monkeypatch.setattr(sam_source.current_platform, "is_cuda_alike", lambda: on_gpu)
    monkeypatch.setattr(torch.cuda, "Stream", object)
    assert sam_source.encode_stream(CspConfig(**settings))._streams is streams


def encode_late(model: Any) -> None:
    """In the worker."""
    model.masks.encode_stream = EncodeStream(LateStreams())
    encoding = model.timeline.encoding
    model.sam_ended_on = []

    def noted(name: str, keys: Any, stream: Any = None) -> Any:
        if name == "vllm_csp.encode_sam":
            model.sam_ended_on.append(stream)
        return encoding(name, keys, stream)

    model.timeline.encoding = noted


def what_happened(model: Any) -> tuple[list[int], list[bool]]:
    """In the worker: how often each entry of the stream has run again, and where spans ended."""
    [stream] = model.masks.encode_stream._streams.made
    ended = [one is stream for one in model.sam_ended_on]
    return [work.replays for work in stream.work], ended
