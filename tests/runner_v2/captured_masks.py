"""Masks of answers whose decoding is replayed from graphs; `test_runner_v2.py` runs it."""

from __future__ import annotations

import pytest

from tests.overlap import iou
from tests.runner_v2.gpu_like import CAPTURE, capture, recorded_graphs, triton_attention
from tests.staged.engine import running
from vllm_csp.mini import MINI
from vllm_csp.scenes import make_sample
from vllm_csp.serving.segmenter import Answered, Question, Segmenter

SCENE = 1000
MOST_TOKENS = 8


@pytest.mark.parametrize("policy", ["dense", "csp"])
def test_masks_are_those_of_eager_steps(policy: str) -> None:
    """LISA-mini writes `[SEG]` in a step that is replayed; its row is read out behind the graph."""
    options = {
        "enforce_eager": False,
        "compilation_config": {**CAPTURE, "mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"},
        "max_num_seqs": 3,
    }
    with triton_attention(), recorded_graphs(), running(MINI, {"policy": policy}, **options) as one:
        # The graphs are taken up once they are there.
        eager = _ask(one.segmenter)
        graphs = capture(one.model_runner)
        replayed = _ask(one.segmenter)
    assert sum(graph.replays for graph in graphs.values()) > 0
    assert [answer.text for answer in replayed] == [answer.text for answer in eager]
    for ours, theirs in zip(replayed, eager, strict=True):
        assert len(ours.masks) == len(theirs.masks) == 1
        assert iou(ours.masks[0], theirs.masks[0]) > 0.999


def _ask(segmenter: Segmenter) -> list[Answered]:
    sample = make_sample(SCENE, "test")
    asked = [one for one in sample.questions if len(one.masks) == 1][:2]
    return segmenter.ask(
        [Question(one.text, sample.image, max_tokens=MOST_TOKENS) for one in asked]
    )
