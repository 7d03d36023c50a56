"""One code for all policies: where two of them mean the same, they compute the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import FullAttentionSpec

from tests.staged.compare import same_bits
from tests.staged.engine import Noted, running
from tests.staged.prompts import mixed_prompts

BOUNDARIES = [0, 2, 4]
SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "keeping-all-is-dense": (
        {"policy": "csp", "cluster_tokens": 256, "prune_tokens": 256},
        {"policy": "dense"},
    ),
    "pruning-alone-is-fastv": (
        {"policy": "csp", "cluster_layers": 0, "scatter_layers": 2, "prune_tokens": 128},
        {"policy": "fastv"},
    ),
    "clustering-alone-is-random": (
        {
            "policy": "csp",
            "cluster_layers": 8,
            "scatter_layers": 0,
            "cluster": "random",
            "cluster_tokens": 64,
        },
        {"policy": "random"},
    ),
    "clustering-alone-is-prumerge+": (
        {
            "policy": "csp",
            "cluster_layers": 8,
            "scatter_layers": 0,
            "cluster": "prumerge+",
            "cluster_tokens": 64,
        },
        {"policy": "prumerge+"},
    ),
    "stages-as-json-are-csp": (
        {
            "policy": "custom",
            "stages": [
                {"first_layer": 0, "last_layer": 2, "selector": "grid", "budget": 64},
                {"first_layer": 2, "last_layer": 4, "selector": "all", "budget": 256},
                {"first_layer": 4, "last_layer": 8, "selector": "attention", "budget": 16},
            ],
        },
        {"policy": "csp"},
    ),
}


def generate(checkpoint: Path, csp: dict[str, Any]) -> list[Noted]:
    with running(checkpoint, csp, BOUNDARIES) as engine:
        return engine.generate(mixed_prompts())


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME)
def test_same_tokens_and_bits(
    checkpoint: Path, pair: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """Tokens, and every row's states before layers 0, 2 and 4 and after the last norm."""
    one, other = (generate(checkpoint, csp) for csp in pair)
    for noted, expected in zip(one, other, strict=True):
        assert noted.tokens == expected.tokens
        assert same_bits(noted, expected)


def test_other_policies_compute_other_bits(checkpoint: Path) -> None:
    """The comparison above can fail."""
    one = generate(checkpoint, {"policy": "random"})
    other = generate(checkpoint, {"policy": "csp", "cluster_tokens": 255, "prune_tokens": 256})
    dense = generate(checkpoint, {"policy": "dense"})
    for noted, almost, expected in zip(one, other, dense, strict=True):
        has_image = len(expected.final[0][0]) > 256
        assert same_bits(almost, expected) != has_image
        # Text goes through all layers under every policy.
        assert (noted.tokens != expected.tokens) == has_image


def test_dense_is_vllm_unmodified(checkpoint: Path) -> None:
    with running(checkpoint, {"policy": "dense"}) as engine:
        assert engine.model.runner is None
        assert type(engine.model.language_model) is LlamaForCausalLM
        assert type(engine.scheduler) in (Scheduler, AsyncScheduler)
        [group] = engine.scheduler.kv_cache_config.kv_cache_groups
        assert type(group.kv_cache_spec) is FullAttentionSpec
