"""Model runner V2 and what else only GPUs choose, in processes of their own, interpreted.

Triton asks for its interpreter, and vLLM for the runner, when they are imported. Slow, as each
program of a kernel is a piece of Python; `make test-v2` runs more of the tests in the same way.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ON_V2 = {
    "TRITON_INTERPRET": "1",
    "VLLM_USE_V2_MODEL_RUNNER": "1",
    "PYTHONPATH": os.pathsep.join((str(HERE / "on_path"), str(ROOT))),
}


def passes(*what: str) -> None:
    """Fails with pytest's output unless these tests pass on V2, none of them skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *what]
    run = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **ON_V2}, text=True, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert "SKIPPED" not in run.stdout


def test_stages_compute_what_the_reference_does() -> None:
    """csp, whose stages differ in all that a runner tells them."""
    chosen = "csp-65 and (greedy or kept or states)"
    passes("tests/staged/test_engine_equals_reference.py", "-k", chosen)


def test_decoding_is_captured_with_triton_s_attention() -> None:
    passes(str(HERE / "captured_decoding.py"))


@pytest.mark.slow
def test_masks_of_captured_decoding() -> None:
    passes(str(HERE / "captured_masks.py"))
