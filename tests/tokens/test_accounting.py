"""Costs equal the published formulas, brute force, and vLLM's own grouping."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vllm_csp.tokens import Schedule, policy
from vllm_csp.tokens.accounting import (
    DecoderShape,
    cost_of_kv_groups,
    dense_flops,
    flops_ratio,
    kv_blocks,
    kv_groups,
    kv_ratio,
    kv_slots,
    layer_flops,
    prefill_flops,
)

LLAMA_7B = DecoderShape(4096, 11008, 32, 32, 128)
FASTV_7B = DecoderShape(4096, 11008, 32, 32, 128, ffn_matrices=2)
FASTV_13B = DecoderShape(5120, 13824, 40, 40, 128, ffn_matrices=2)


def staged(*lengths: int) -> Schedule:
    stages, first = [], 0
    for index, length in enumerate(lengths):
        stages.append(
            {
                "first_layer": first,
                "last_layer": first + length,
                "selector": {"name": "divprune", "spatial_weight": index},
                "budget": 4 + index,
            }
        )
        first += length
    return Schedule(num_layers=first, num_image_tokens=16, stages=stages)


def test_fastv_cost_of_a_layer_is_the_published_one() -> None:
    assert layer_flops(FASTV_7B, 612).total / 2 == pytest.approx(99.3e9, rel=1e-3)
    assert layer_flops(FASTV_13B, 612).total / 2 == pytest.approx(154.6e9, rel=1e-3)


@pytest.mark.parametrize(
    ("layer", "dropped", "percent"), [(2, 0.9, 20), (2, 0.75, 33), (2, 0.5, 55), (3, 0.5, 57)]
)
def test_fastv_ratios_are_the_published_ones(layer: int, dropped: float, percent: int) -> None:
    kept = round(576 * (1 - dropped))
    schedule = policy("fastv", 32, 576, layer=layer, kept=kept)
    assert round(100 * flops_ratio(schedule, FASTV_7B, 612 - 576)) == percent


def test_llama_7b_has_6_48e9_multiply_adds_per_token() -> None:
    assert 32 * layer_flops(LLAMA_7B, 1).linear / 2 == pytest.approx(6.48e9, rel=1e-3)


def test_grouped_queries_shrink_key_and_value_projections_only() -> None:
    grouped = DecoderShape(64, 96, 8, 2, 8)
    cost = layer_flops(grouped, 10)
    assert cost.linear == 2 * 10 * (64 * 64 + 2 * 64 * 16 + 64 * 64 + 3 * 64 * 96)
    assert cost.attention == 2 * 2 * 10 * 10 * 64


def test_prefill_sums_layer_by_layer() -> None:
    schedule = policy("csp", 32)
    cost = prefill_flops(schedule, LLAMA_7B, 64)
    kept = [stage.budget for stage in schedule.stages for _ in range(stage.num_layers)]
    layers = [layer_flops(LLAMA_7B, tokens + 64) for tokens in kept]
    assert cost.linear == sum(layer.linear for layer in layers)
    assert cost.attention == sum(layer.attention for layer in layers)
    assert dense_flops(schedule, LLAMA_7B, 64) == prefill_flops(policy("dense", 32), LLAMA_7B, 64)


def test_dense_costs_the_whole() -> None:
    dense = policy("dense", 32)
    assert flops_ratio(dense, LLAMA_7B, 64) == 1.0
    assert kv_ratio(dense, 320, 16) == 1.0
    assert kv_blocks(dense, 320, 16) == (20,)


def test_csp_holds_less_than_055_of_the_dense_blocks() -> None:
    csp = policy("csp", 32, preset="65")
    assert kv_slots(csp, 320) == (128, 320, 80)
    assert kv_blocks(csp, 320, 16) == (8, 20, 5, 5)
    assert kv_ratio(csp, 320, 16) == pytest.approx(304 / 640)


LENGTHS = [(8, 8, 16), (2, 13, 17), (2, 30), (4, 5), (4, 6), (2, 3, 2), (3, 4, 4), (5, 7, 20)]
LENGTHS += [(1, 1), (1,), (32,), (10, 10, 20), (6, 6, 6), (2, 2, 3), (7, 10), (7, 11)]


@pytest.mark.parametrize("lengths", LENGTHS)
def test_groups_are_those_vllm_makes(lengths: tuple[int, ...]) -> None:
    utils = pytest.importorskip("vllm.v1.core.kv_cache_utils")
    import torch
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    @dataclass(frozen=True, kw_only=True)
    class StageSpec(FullAttentionSpec):
        stage: int

        @classmethod
        def merge(cls, specs):
            assert all(spec == specs[0] for spec in specs)
            return specs[0]

    schedule = staged(*lengths)
    specs = {
        f"layers.{layer}": StageSpec(
            block_size=16,
            num_kv_heads=2,
            head_size=32,
            dtype=torch.float32,
            stage=schedule.stage_of(layer),
        )
        for layer in range(schedule.num_layers)
    }
    made = utils._get_kv_cache_groups_uniform_page_size(specs)
    groups = kv_groups(schedule)
    assert [[f"layers.{n}" for n in group.layers] for group in groups] == [
        list(group.layer_names) for group in made
    ]
    assert [group.stage for group in groups] == [group.kv_cache_spec.stage for group in made]


def test_padding_layers_count_as_memory() -> None:
    schedule = staged(2, 2, 3)
    assert [len(group.layers) for group in kv_groups(schedule)] == [2, 2, 2, 1]
    assert kv_ratio(schedule, 16, 1) == pytest.approx(2 * (4 + 5 + 6 + 6) / (16 * 7))


def test_only_of_many_groups_there_is_something_to_tell() -> None:
    told = cost_of_kv_groups(policy("fastv", 32))
    assert told is not None and "2/30 layers make 16 KV-cache groups" in told
    assert cost_of_kv_groups(policy("csp", 32)) is None
