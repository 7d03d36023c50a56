"""Decoding replayed from graphs, with the Triton attention of GPUs; `test_runner_v2.py` runs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.runner_v2.gpu_like import CAPTURE, capture, recorded_graphs, triton_attention
from tests.runner_v2.recorded_graph import RecordedGraph
from tests.staged.checkpoint import write_sharp
from tests.staged.compare import TOLERANCE, replay
from tests.staged.engine import Engine, running
from tests.staged.policies import CSP
from tests.staged.prompts import image_prompt, text_prompt
from tests.staged.reference import Model
from vllm_csp.kv.decode_buffers import DecodeBuffers

STEPS = 3
# Their lengths differ, so that one's values do not do for another.
PROMPTS = [image_prompt(1, before=5, after=4), text_prompt(2, length=9)]


def test_replayed_steps_are_the_reference_s(tmp_path: Path) -> None:
    """Two requests, padded to three; and that values which lie elsewhere would be missed."""
    checkpoint = write_sharp(tmp_path / "sharp")
    model = Model(checkpoint)
    options = {"enforce_eager": False, "compilation_config": CAPTURE, "max_num_seqs": 3}
    with triton_attention(), recorded_graphs(), running(checkpoint, CSP.csp, **options) as engine:
        [graph] = capture(engine.model_runner).values()
        names = [engine.add(one, STEPS + 1)[0] for one in PROMPTS]
        engine.step()
        states = [_replayed(engine, graph, names) for _ in range(STEPS - 1)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DecodeBuffers, "hold", lambda self, lengths, slots, _: (lengths, slots))
            states.append(_replayed(engine, graph, names))
        for row, (name, prompt) in enumerate(zip(names, PROMPTS, strict=True)):
            tokens = engine.noted[name].tokens
            expected = replay(model, prompt, CSP.plan, tokens).final[-STEPS:]
            found = torch.stack([one[row] for one in states])
            *right, wrong = (found - expected).abs().amax(dim=-1)
            assert max(right) <= TOLERANCE < 100 * TOLERANCE < wrong
            assert tokens[:STEPS] == model.greedy(prompt, CSP.plan, STEPS)[0]


def _replayed(engine: Engine, graph: RecordedGraph, names: Sequence[str]) -> list[Tensor]:
    """Final states [D] of each request in the next step, which must be a replay."""
    before = graph.replays
    engine.step()
    assert graph.replays == before + 1
    hidden = engine.model_runner.cudagraph_manager.hidden_states
    order = engine.steps[-1].order
    return [hidden[order.index(name)].clone() for name in names]
