"""In a running engine: blocks and slots are those of the accounting, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.staged.engine import Engine, Step, running
from tests.staged.plans import Prompt
from tests.staged.policies import CASES, Case
from tests.staged.prompts import mixed_prompts
from tests.staged.selection import TOKENS
from vllm_csp.tokens.accounting import kv_blocks

BLOCK = 32
CHOSEN = [case for case in CASES if case.name in ("csp-65", "feather", "prumerge+", "custom")]


@pytest.fixture(scope="module", params=CHOSEN, ids=str)
def ran(
    request: pytest.FixtureRequest, standin: Path
) -> Iterator[tuple[Engine, Case, dict[str, Prompt]]]:
    """A mixed batch in which requests end one after the other, and others take their place."""
    case: Case = request.param
    with running(standin, case.csp, case.first_layers, max_num_seqs=4) as engine:
        engine.model.decodes_masks = False
        prompts = {}
        for number, prompt in enumerate(mixed_prompts()):
            [name] = engine.add(prompt, max_tokens=20 + 9 * number)
            prompts[name] = prompt
        engine.finish()
        yield engine, case, prompts


def test_blocks_held(ran: tuple[Engine, Case, dict[str, Prompt]]) -> None:
    """Right after prefill and in every step after it; no block twice."""
    engine, _, prompts = ran
    assert engine.model.runner is not None
    schedule, groups = engine.model.runner.schedule, len(engine.managers)
    assert {manager.block_size for manager in engine.managers} == {BLOCK}
    assert len(engine.steps) > 60
    for step in engine.steps:
        for name, blocks in step.blocks.items():
            tokens = step.computed[name] + step.fed[name]
            held = tuple(len(one) for one in blocks)
            if prompts[name].image is None:
                assert held == (-(-tokens // BLOCK),) * groups
            else:
                assert held == kv_blocks(schedule, tokens, BLOCK)
        everyones = [block for blocks in step.blocks.values() for one in blocks for block in one]
        assert len(everyones) == len(set(everyones))


def test_slots_written(ran: tuple[Engine, Case, dict[str, Prompt]]) -> None:
    """Every layer writes the next slots of its group's blocks, without gap."""
    engine, case, prompts = ran
    groups = engine.scheduler.kv_cache_config.kv_cache_groups
    layers = {name for group in groups for name in group.layer_names}
    for step in engine.steps:
        assert set(step.slots) == layers
        for number, group in enumerate(groups):
            dropped = TOKENS - case.plan.counts[group.kv_cache_spec.stage]
            expected = expected_slots(step, number, prompts, dropped)
            assert all(step.slots[name] == expected for name in group.layer_names)


def expected_slots(
    step: Step, group: int, prompts: Mapping[str, Prompt], dropped: int
) -> list[int]:
    """Slots of a step's rows in a group whose stage leaves out that many image tokens."""
    slots = []
    for name in step.order:
        missing = 0 if prompts[name].image is None else dropped
        first = max(0, step.computed[name] - missing)
        last = step.computed[name] + step.fed[name] - missing
        blocks = step.blocks[name][group]
        slots += [blocks[slot // BLOCK] * BLOCK + slot % BLOCK for slot in range(first, last)]
    return slots


def test_all_blocks_come_back(ran: tuple[Engine, Case, dict[str, Prompt]]) -> None:
    engine, _, _ = ran
    assert engine.pool.get_num_free_blocks() == engine.pool.num_gpu_blocks - 1
    assert engine.leftovers() == {"requests": 0, "dropped": 0, "tables": 0}
