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
from tests.staged.plans import Prompt
from tests.staged.policies import CSP
from tests.staged.prompts import image_prompt, text_prompt
from tests.staged.reference import Model
from vllm_csp.kv.decode_buffers import DecodeBuffers

# Tokens of each. Their lengths differ, so that one's values do not do for another.
PROMPTS = [(image_prompt(1, before=5, after=4), 5), (text_prompt(2, length=9), 3)]


def test_replayed_steps_are_the_reference_s(tmp_path: Path) -> None:
    """Two requests, padded to three, then one alone; and that values elsewhere would be missed."""
    checkpoint = write_sharp(tmp_path / "sharp")
    options = {"enforce_eager": False, "compilation_config": CAPTURE, "max_num_seqs": 3}
    with triton_attention(), recorded_graphs(), running(checkpoint, CSP.csp, **options) as engine:
        graphs = capture(engine.model_runner)
        image, text = [engine.add(prompt, tokens)[0] for prompt, tokens in PROMPTS]
        engine.step()
        states = [_replayed(engine, graphs[3]), _replayed(engine, graphs[3])]
        states.append(_replayed(engine, graphs[1]))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DecodeBuffers, "hold", lambda self, lengths, slots, _: (lengths, slots))
            states.append(_replayed(engine, graphs[1]))
        tokens = {name: engine.noted[name].tokens for name in (image, text)}
    *right, wrong = _distances(checkpoint, PROMPTS[0][0], tokens[image], [s[image] for s in states])
    assert max(right) <= TOLERANCE < 100 * TOLERANCE < wrong
    both = [one[text] for one in states if text in one]
    assert max(_distances(checkpoint, PROMPTS[1][0], tokens[text], both)) <= TOLERANCE


def _replayed(engine: Engine, graph: RecordedGraph) -> dict[str, Tensor]:
    """Final states [D] by request of the next step, which must be a replay of this graph."""
    before = graph.replays
    engine.step()
    assert graph.replays == before + 1
    hidden = engine.model_runner.cudagraph_manager.hidden_states
    return {name: hidden[row].clone() for row, name in enumerate(engine.steps[-1].order)}


def _distances(
    checkpoint: Path, prompt: Prompt, tokens: list[int], states: Sequence[Tensor]
) -> list[float]:
    """Largest difference of each decoding step from the reference, which gets the same tokens."""
    expected = replay(Model(checkpoint), prompt, CSP.plan, tokens).final[-len(states) :]
    assert len(states) == len(tokens) - 1
    found: list[float] = (torch.stack(list(states)) - expected).abs().amax(dim=-1).tolist()
    return found
