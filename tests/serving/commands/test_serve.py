"""`vllm-csp serve` as it is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HINT = "The checkpoint comes first: vllm-csp serve CHECKPOINT"


@pytest.mark.parametrize(
    ("words", "hinted"),
    [(["--port", "8001", "a-checkpoint"], True), (["a-checkpoint", "--prot", "8001"], False)],
    ids=["the checkpoint at the end", "an unknown flag"],
)
def test_a_checkpoint_behind_flags_is_told(words: list[str], *, hinted: bool) -> None:
    program = Path(sys.executable).with_name("vllm-csp")
    done = subprocess.run(
        [program, "serve", *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2
    assert "unrecognized arguments" in done.stderr
    assert (HINT in done.stderr) == hinted
