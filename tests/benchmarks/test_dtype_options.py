"""A benchmark computes in what this machine has instructions for, unless told otherwise."""

from __future__ import annotations

import argparse

import pytest
import torch

from benchmarks.dtype_options import add_dtype_option, add_dtypes_option
from vllm_csp import cpu_dtypes

ONLY_FP32 = {torch.float32}
BOTH = {torch.float32, torch.bfloat16}


def options(*given: str) -> tuple[str, list[str]]:
    parser = argparse.ArgumentParser()
    add_dtype_option(parser)
    add_dtypes_option(parser)
    parsed = parser.parse_args(given)
    return parsed.dtype, parsed.dtypes


@pytest.mark.parametrize(
    ("fast", "gpu", "expected"),
    [
        (ONLY_FP32, False, ("float32", ["float32"])),
        (BOTH, False, ("bfloat16", ["bfloat16", "float32"])),
        (ONLY_FP32, True, ("bfloat16", ["bfloat16", "float32"])),
    ],
)
def test_defaults_follow_the_machine(
    monkeypatch: pytest.MonkeyPatch,
    fast: set[torch.dtype],
    gpu: bool,
    expected: tuple[str, list[str]],
) -> None:
    monkeypatch.setattr(cpu_dtypes, "has_instructions", fast.__contains__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    assert options() == expected
    assert options("--dtype", "bfloat16", "--dtypes", "float32") == ("bfloat16", ["float32"])
