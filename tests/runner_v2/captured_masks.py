"""Masks of answers whose decoding is replayed from graphs; `test_runner_v2.py` runs it."""

from __future__ import annotations

import pytest
from PIL import Image
from skimage import data

from benchmarks.overlap import iou
from tests.runner_v2.gpu_like import CAPTURE, capture, recorded_graphs, triton_attention
from tests.staged.engine import running
from vllm_csp.mini import MINI
from vllm_csp.serving.segmenter import Answered, Question, Segmenter

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
    assert replayed.text == eager.text
    [ours], [theirs] = replayed.masks, eager.masks
    assert iou(ours, theirs) > 0.999


def _ask(segmenter: Segmenter) -> Answered:
    photo = Image.fromarray(data.chelsea())
    question = Question("Please segment the cat in this image.", photo, max_tokens=MOST_TOKENS)
    [answer] = segmenter.ask([question])
    return answer
