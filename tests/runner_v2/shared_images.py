"""Keys and values that go to several requests, by GPUs' kernel; `test_runner_v2.py` runs it."""

from __future__ import annotations

from pathlib import Path

from tests.runner_v2.gpu_like import triton_attention
from tests.staged.checkpoint import write_sharp
from tests.staged.engine import running
from tests.staged.policies import CSP
from tests.staged.reference import Model
from tests.staged.test_shared_images import assert_as_alone, question

STEPS = 2


def test_a_shared_photo_is_written_to_both_requests(tmp_path: Path) -> None:
    checkpoint = write_sharp(tmp_path / "sharp")
    model = Model(checkpoint)
    prompts = [question(1, 4), question(2, 6)]
    with triton_attention(), running(checkpoint, CSP.csp, CSP.first_layers) as engine:
        first, second = engine.generate(prompts, STEPS)
        assert engine.model.runner is not None
        assert engine.model.runner.shared_images == 1
    assert_as_alone(first, model, CSP.plan, prompts[0])
    assert_as_alone(second, model, CSP.plan, prompts[1], shared_stages=2)
