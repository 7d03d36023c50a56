"""Stages with a quantised KV cache, and in bf16: no further from fp32 than dense is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.staged.compare import same_bits
from tests.staged.engine import Noted, running
from tests.staged.plans import Plan, Prompt
from tests.staged.policies import CSP, DENSE
from tests.staged.prompts import mixed_prompts
from tests.staged.reference import Model

KEEPING_ALL = {"policy": "csp", "cluster_tokens": 256, "prune_tokens": 256}
FP8 = ["fp8", "fp8_e5m2"]
needs_fp8 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "AVX2",
    reason="vLLM refuses an FP8 cache on CPUs without AVX-512",
)


def generate(
    checkpoint: Path, csp: dict[str, Any], kv_dtype: torch.dtype, **options: Any
) -> list[Noted]:
    with running(checkpoint, csp, CSP.first_layers, **options) as engine:
        assert {cache.dtype for cache in engine.model_runner.kv_caches} == {kv_dtype}
        return engine.generate(mixed_prompts())


def error(model: Model, prompt: Prompt, plan: Plan, noted: Noted) -> float:
    """Relative distance of the final states from fp32 on the same tokens and sets."""
    kept = noted.kept[0] if noted.kept else model.run(prompt, plan).kept
    trace = model.run(prompt, plan, noted.tokens[:-1], kept)
    at = {position: row for row, position in enumerate(trace.entering[-1][0])}
    expected = torch.cat([trace.final[[at[one] for one in rows]] for rows, _ in noted.final])
    found = torch.cat([states for _, states in noted.final]).float()
    return float((found - expected).norm() / expected.norm())


@needs_fp8
@pytest.mark.parametrize("kind", FP8)
def test_fp8_cache_keeping_all_is_dense_to_the_bit(checkpoint: Path, kind: str) -> None:
    runs = [
        generate(checkpoint, csp, torch.uint8, kv_cache_dtype=kind)
        for csp in (KEEPING_ALL, DENSE.csp)
    ]
    for noted, expected in zip(*runs, strict=True):
        assert noted.tokens == expected.tokens
        assert same_bits(noted, expected)


OPTIONS: dict[str, tuple[dict[str, Any], torch.dtype, float]] = {
    "fp8": ({"kv_cache_dtype": "fp8"}, torch.uint8, 0.15),
    "fp8_e5m2": ({"kv_cache_dtype": "fp8_e5m2"}, torch.uint8, 0.3),
    "bf16": ({"dtype": "bfloat16"}, torch.bfloat16, 0.03),
    "bf16-fp8": ({"dtype": "bfloat16", "kv_cache_dtype": "fp8"}, torch.uint8, 0.15),
}


@pytest.mark.parametrize(
    ("options", "kv_dtype", "most"),
    [
        pytest.param(*values, id=name, marks=[needs_fp8] * ("fp8" in name))
        for name, values in OPTIONS.items()
    ],
)
def test_no_further_from_fp32_than_dense(
    checkpoint: Path, model: Model, options: dict[str, Any], kv_dtype: torch.dtype, most: float
) -> None:
    """Given the sets it chose, csp's error is at most 1.5 times that of dense."""
    errors: dict[str, list[float]] = {}
    for case in (CSP, DENSE):
        run = generate(checkpoint, case.csp, kv_dtype, **options)
        pairs = zip(mixed_prompts(), run, strict=True)
        errors[case.name] = [error(model, prompt, case.plan, noted) for prompt, noted in pairs]
    for ours, dense in zip(errors[CSP.name], errors[DENSE.name], strict=True):
        assert 0 < dense < most, errors
        assert ours <= 1.5 * dense, errors


def test_bf16_keeping_all_gives_dense_tokens(checkpoint: Path, model: Model) -> None:
    """Not its bits: between stages the residual sum is rounded before it is normalised.

    And of two tokens whose logits are a rounding apart, it may take the other.
    """
    runs = [
        generate(checkpoint, csp, torch.bfloat16, dtype="bfloat16")
        for csp in (KEEPING_ALL, DENSE.csp)
    ]
    for noted, expected in zip(*runs, strict=True):
        pairs = list(zip(noted.tokens, expected.tokens, strict=True))
        differ = [at for at, (one, other) in enumerate(pairs) if one != other]
        if differ:
            taken, right = dense_logits(model, expected, differ[0])[list(pairs[differ[0]])]
            assert abs(taken - right) < torch.finfo(torch.bfloat16).eps * abs(right)
    assert sum(one.tokens == other.tokens for one, other in zip(*runs, strict=True)) > 1


def dense_logits(model: Model, noted: Noted, number: int) -> Tensor:
    """Of the generated token of that number [vocabulary], from the states of a run."""
    _, states = noted.final[number]
    return states[-1].float() @ model.weights["lm_head.weight"].float().T
