"""Steps that are scheduled before the last one has ended; `test_runner_v2.py` runs it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vllm.platforms.cpu import CpuPlatform

from tests.staged.checkpoint import write_sharp
from tests.staged.engine import running
from tests.staged.policies import CSP
from tests.staged.prompts import mixed_prompts
from tests.staged.reference import Model

STEPS = 8


def test_steps_scheduled_ahead_are_the_reference_s(tmp_path: Path) -> None:
    """vLLM's default, which its CPU platform switches off."""
    checkpoint = write_sharp(tmp_path / "sharp")
    model = Model(checkpoint)
    check = CpuPlatform.check_and_update_config

    def checked(platform: Any, vllm_config: Any) -> None:
        check(vllm_config)
        vllm_config.scheduler_config.async_scheduling = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "check_and_update_config", checked)
        with running(checkpoint, CSP.csp) as engine:
            core: Any = engine.llm.llm_engine.engine_core
            assert core.engine_core.batch_queue is not None
            names = [engine.add(prompt, STEPS)[0] for prompt in mixed_prompts()]
            engine.finish()
            found = [engine.noted[name].tokens for name in names]
    assert found == [model.greedy(one, CSP.plan, STEPS)[0] for one in mixed_prompts()]
