"""vLLM keeps stages apart when it groups layers, as the accounting says it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm.v1.core.kv_cache_utils import get_kv_cache_groups
from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager
from vllm.v1.kv_cache_spec_registry import KVCacheSpecRegistry

from tests.kv.harness import engine_config, kv_cache_config, layer_name, layer_specs
from vllm_csp.kv.spec import StageManager, StageSpec, register_stage_spec
from vllm_csp.schedules import staged_schedule
from vllm_csp.tokens import Schedule, policy
from vllm_csp.tokens.accounting import kv_groups

POLICIES: list[tuple[int, dict[str, Any]]] = [
    (32, {"policy": "csp"}),
    (32, {"policy": "csp", "preset": "70"}),
    (40, {"policy": "csp"}),
    (32, {"policy": "csp", "cluster_layers": 2, "scatter_layers": 13}),
    (32, {"policy": "csp", "cluster_layers": 10, "scatter_layers": 10}),
    (32, {"policy": "csp", "cluster_layers": 9, "scatter_layers": 10}),
    (32, {"policy": "csp", "cluster_layers": 1, "scatter_layers": 1}),
    (32, {"policy": "fastv"}),
    (32, {"policy": "fastv", "layer": 20}),
    (32, {"policy": "feather"}),
    (32, {"policy": "prumerge+"}),
    (8, {"policy": "csp"}),
    (5, {"policy": "csp"}),
]


def staged(config: Any) -> Schedule:
    schedule = staged_schedule(config)
    assert schedule is not None
    return schedule


@pytest.mark.parametrize(("layers", "csp"), POLICIES, ids=str)
def test_groups_are_those_of_the_accounting(
    folder: Callable[[int], Path], layers: int, csp: dict[str, Any]
) -> None:
    """Same number, same stages, same layers, same order."""
    config = engine_config(folder(layers), csp)
    schedule = staged(config)
    config.cache_config.kv_cache_layout = "LBHNC"
    groups = get_kv_cache_groups(config, layer_specs(schedule, layers))
    expected = [
        (group.stage, [layer_name(layer) for layer in group.layers])
        for group in kv_groups(schedule)
    ]
    assert [(one.kv_cache_spec.stage, list(one.layer_names)) for one in groups] == expected


def test_every_group_gets_a_stage_manager(folder: Callable[[int], Path]) -> None:
    config = engine_config(folder(32), {"policy": "csp"})
    made = kv_cache_config(config, memory=1 << 32)
    managers = {
        KVCacheSpecRegistry.get_manager_class(g.kv_cache_spec) for g in made.kv_cache_groups
    }
    assert managers == {StageManager}


def test_memory_is_shared_out_in_equal_pages(folder: Callable[[int], Path]) -> None:
    """A group's page holds 8 layers, a dense one 32: four times as many blocks."""
    memory = 1 << 32
    csp = kv_cache_config(engine_config(folder(32), {"policy": "csp"}), memory)
    dense = kv_cache_config(engine_config(folder(32), {"policy": "dense"}), memory)
    assert csp.num_blocks == 4 * dense.num_blocks


def test_specs_of_different_stages_do_not_merge() -> None:
    schedule = policy("csp", 8)
    specs = list(layer_specs(schedule, 8).values())
    assert StageSpec.merge(specs[:2]) == specs[0]
    with pytest.raises(AssertionError):
        StageSpec.merge(specs)
    same, all_layers = (dict(enumerate(some)) for some in (specs[:2], specs))
    assert specs[0].is_uniform_with_collection(same)
    assert not specs[0].is_uniform_with_collection(all_layers)


def test_registering_again_keeps_vllms_own_specs() -> None:
    from vllm.v1.kv_cache_interface import FullAttentionSpec

    register_stage_spec()
    register_stage_spec()
    [dense] = {type(spec) for spec in layer_specs(None, 2).values()}
    assert dense is FullAttentionSpec
    own = next(iter(layer_specs(None, 1).values()))
    staged_spec = next(iter(layer_specs(policy("csp", 8), 8).values()))
    assert KVCacheSpecRegistry.get_manager_class(own) is FullAttentionManager
    assert KVCacheSpecRegistry.get_manager_class(staged_spec) is StageManager
