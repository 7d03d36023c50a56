"""Blocks that requests hold, in vLLM's scheduler with its real managers and block pool."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm.v1.request import RequestStatus

from tests.kv.harness import BLOCK, IMAGE_TOKENS, Bench, engine_config, request
from vllm_csp.tokens.accounting import kv_blocks, kv_groups, kv_ratio

GIB = 1 << 30
CSP: dict[str, Any] = {"policy": "csp", "preset": "65"}
SCHEDULES: list[tuple[int, dict[str, Any]]] = [
    (32, CSP),
    (40, {"policy": "csp", "preset": "70"}),
    (32, {"policy": "fastv", "layer": 8, "kept": 31}),
    (32, {"policy": "feather"}),
    (32, {"policy": "prumerge+"}),
    (12, {"policy": "csp", "cluster_layers": 5, "scatter_layers": 3, "cluster_tokens": 33}),
]


@pytest.mark.parametrize("block_size", [16, 32, 128])
@pytest.mark.parametrize(("layers", "csp"), SCHEDULES, ids=str)
def test_blocks_are_those_of_the_accounting(
    folder: Callable[[int], Path], layers: int, csp: dict[str, Any], block_size: int
) -> None:
    """At the end of prefill and after each generated token, for lengths on all sides of a block."""
    config = engine_config(folder(layers), csp, block_size=block_size)
    bench = Bench(config, memory=8 * GIB)
    schedule, groups = bench.schedule, len(bench.managers)
    assert schedule is not None and groups == len(kv_groups(schedule))
    draw = random.Random(3)
    lengths = [1, 16, 17, 64, *draw.sample(range(2, 300), 6)]
    for text in lengths:
        bench.scheduler.add_request(
            request(f"image{text}", text, f"picture{text}", draw.randint(0, text))
        )
        bench.scheduler.add_request(request(f"text{text}", text))
    for _ in range(10):
        bench.step()  # until all are prefilled
    for _ in range(2 * block_size):
        bench.step()
        for text in lengths:
            held = bench.held(f"image{text}")
            tokens = bench.scheduler.requests[f"image{text}"].num_computed_tokens
            assert held == kv_blocks(schedule, tokens, block_size)
            words = bench.scheduler.requests[f"text{text}"].num_computed_tokens
            assert bench.held(f"text{text}") == (-(-words // block_size),) * groups
    held_by_all = [block for name in bench.scheduler.requests for block in bench.block_ids(name)]
    assert len(held_by_all) == len(set(held_by_all)), "a block belongs to one request and group"


def test_a_request_holds_half_of_the_dense_blocks(folder: Callable[[int], Path]) -> None:
    """csp 65 % at 32 layers, 256 image and 64 text tokens, blocks of 16: 0.475 of dense."""
    csp, dense = (
        Bench(engine_config(folder(32), one), memory=8 * GIB) for one in (CSP, {"policy": "dense"})
    )
    for bench in (csp, dense):
        bench.scheduler.add_request(request("one", 64, "picture"))
        bench.step()
    layers_per_block = 32 / len(csp.managers)
    assert layers_per_block == 8
    in_dense_blocks = sum(csp.held("one")) * layers_per_block / 32
    [of_dense] = dense.held("one")
    assert csp.held("one") == (8, 20, 5, 5)
    assert in_dense_blocks / of_dense == 0.475 <= 0.55
    assert csp.schedule is not None
    assert kv_ratio(csp.schedule, IMAGE_TOKENS + 64, BLOCK) == 0.475


def filled(folder: Path, csp: dict[str, Any], memory: int) -> Bench:
    """As many requests of one picture and 64 words as run at once in that much memory."""
    config = engine_config(folder, csp, max_model_len=512, max_num_batched_tokens=1 << 17)
    bench = Bench(config, memory)
    for number in range(200):
        bench.scheduler.add_request(request(f"r{number}", 64, f"picture{number}"))
    bench.scheduler.schedule()
    assert bench.scheduler.running and bench.scheduler.waiting
    return bench


def test_a_cache_admits_nearly_twice_as_many_requests(folder: Callable[[int], Path]) -> None:
    """In the memory of 24 dense requests of 320 tokens."""
    dense_block = 32 * 2 * BLOCK * 32 * 128 * 2
    memory = dense_block * (24 * 20 + 1)
    dense, csp = (
        len(filled(folder(32), one, memory).scheduler.running) for one in ({"policy": "dense"}, CSP)
    )
    assert dense == 24
    assert csp == 50 >= 1.8 * dense


def test_what_a_stage_leaves_out_is_free_for_others(folder: Callable[[int], Path]) -> None:
    """Every block belongs to one request and group, and fewer are left than one request needs."""
    bench = filled(folder(32), CSP, GIB)
    names = [one.request_id for one in bench.scheduler.running]
    blocks = [block for name in names for block in bench.block_ids(name)]
    assert len(blocks) == len(set(blocks)) == 38 * len(names)
    assert bench.free_blocks == bench.pool.num_gpu_blocks - 1 - len(blocks) < 38
    waiting = bench.scheduler.waiting.peek_request().request_id
    bench.scheduler.finish_requests(names[:4], RequestStatus.FINISHED_ABORTED)
    freed = set(blocks[: 4 * 38])
    bench.scheduler.schedule()
    assert freed & set(bench.block_ids(waiting)), "the next request takes the blocks given back"
