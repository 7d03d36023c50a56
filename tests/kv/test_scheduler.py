"""The staged scheduler over long times: nothing leaks, no prompt is split."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm.v1.request import RequestStatus

from tests.kv.harness import IMAGE_TOKENS, Bench, engine_config, request
from vllm_csp.kv.tracker import NO_IMAGE_KEY, SAME_IMAGE_KEY
from vllm_csp.tokens.accounting import kv_blocks

CSP: dict[str, Any] = {"policy": "csp"}


@pytest.mark.parametrize("seed", range(3))
def test_no_leak_after_2000_random_cycles(folder: Callable[[int], Path], seed: int) -> None:
    """Requests come, are aborted, finish and are preempted; the pool ends as it began.

    On the way, every running request holds exactly the blocks of the accounting.
    """
    draw = random.Random(seed)
    config = engine_config(folder(32), CSP, max_model_len=512, max_num_seqs=32)
    bench = Bench(config, memory=300 << 20)  # 149 blocks: some seven requests with a picture
    assert bench.schedule is not None
    free, added = bench.free_blocks, 0
    seen = {"finished": 0, "aborted": 0, "preempted": 0}
    for _ in range(2000):
        requests = bench.scheduler.requests
        if len(requests) < 12 and draw.random() < 0.5:
            image = f"picture{draw.randrange(40)}" if draw.random() < 0.7 else None
            one = request(f"r{added}", draw.randint(1, 120), image, max_tokens=draw.randint(1, 60))
            bench.scheduler.add_request(one)
            added += 1
        if requests and draw.random() < 0.04:
            victims = draw.sample(sorted(requests), draw.randint(1, min(2, len(requests))))
            bench.scheduler.finish_requests(victims, RequestStatus.FINISHED_ABORTED)
            seen["aborted"] += len(victims)
        scheduled = bench.scheduler.schedule()
        seen["preempted"] += len(scheduled.preempted_req_ids or ())
        for one in bench.scheduler.running:
            tokens, groups = one.num_computed_tokens, len(bench.managers)
            expected = (
                kv_blocks(bench.schedule, tokens, 16)
                if one.mm_features
                else (-(-tokens // 16),) * groups
            )
            assert bench.held(one.request_id) == expected
        if draw.random() < 0.02 and scheduled.num_scheduled_tokens:
            # Aborted while the model runs: its output comes for a request that is gone.
            victim = draw.choice(sorted(scheduled.num_scheduled_tokens))
            bench.scheduler.finish_requests([victim], RequestStatus.FINISHED_ABORTED)
            seen["aborted"] += 1
        bench.answer(scheduled)
        seen["finished"] = added - len(bench.scheduler.requests) - seen["aborted"]
    assert min(seen.values()) >= 30, seen
    bench.scheduler.finish_requests(None, RequestStatus.FINISHED_ABORTED)
    bench.step()
    assert bench.free_blocks == free
    assert bench.remembered() == 0
    assert not bench.scheduler.requests


def test_a_resumed_request_needs_the_slots_of_its_kept_tokens(
    folder: Callable[[int], Path],
) -> None:
    """What is dropped is still known after a preemption, for prompt and generated tokens."""
    bench = Bench(engine_config(folder(32), CSP, max_model_len=512), memory=300 << 20)
    assert bench.schedule is not None
    for number in range(2):
        bench.scheduler.add_request(request(f"r{number}", 100, f"picture{number}", max_tokens=200))
    preempted: set[str] = set()
    resumed: dict[str, int] = {}
    for _ in range(400):
        scheduled = bench.step()
        preempted |= scheduled.preempted_req_ids or set()
        cached = scheduled.scheduled_cached_reqs
        for name in cached.resumed_req_ids:
            resumed[name] = scheduled.num_scheduled_tokens[name]
            assert bench.held(name) == kv_blocks(bench.schedule, resumed[name], 16)
    assert preempted and set(resumed) == preempted
    assert all(tokens > IMAGE_TOKENS + 100 for tokens in resumed.values())
    assert bench.remembered() == 0


@pytest.mark.parametrize(
    "flags",
    [
        {},
        {"max_num_batched_tokens": 1024},
        # Below max_model_len: raised for prompts, but not for the encoder.
        {"max_num_batched_tokens": 300},
    ],
    ids=str,
)
@pytest.mark.parametrize("steps_ahead", [1, 2], ids=["sync", "async"])
def test_prompts_are_never_split(
    folder: Callable[[int], Path], flags: dict[str, Any], steps_ahead: int
) -> None:
    """Also where the encoder's budget or cache is full, which vLLM meets by scheduling less.

    Async: a step is scheduled before the one before has given its images' places back.
    """
    bench = Bench(engine_config(folder(32), CSP, **flags), memory=4 << 30)
    for number in range(40):
        one = request(f"r{number}", 5, f"picture{number}", before=3, max_tokens=4)
        bench.scheduler.add_request(one)
    running: list[Any] = []
    prefilled: set[str] = set()
    for _ in range(200):
        running.append(bench.scheduler.schedule())
        for new in running[-1].scheduled_new_reqs:
            assert running[-1].num_scheduled_tokens[new.req_id] == 5 + IMAGE_TOKENS
            prefilled.add(new.req_id)
        if len(running) == steps_ahead:
            bench.answer(running.pop(0))
    assert len(prefilled) == 40
    assert not bench.scheduler.requests


def test_requests_without_a_picture_keep_all_slots(folder: Callable[[int], Path]) -> None:
    bench = Bench(engine_config(folder(32), CSP), memory=1 << 30)
    bench.scheduler.add_request(request("text", 300))
    bench.step()
    assert bench.held("text") == (19, 19, 19, 19)


def test_the_worker_is_told_which_picture_it_is(folder: Callable[[int], Path]) -> None:
    """Token ids are the same for all pictures, and a client may send them without one, or lie."""
    bench = Bench(engine_config(folder(32), CSP), memory=1 << 30)
    shown, text = request("shown", 30, "picture"), request("text", 30)
    for one in (shown, text):
        assert one.sampling_params is not None
        one.sampling_params.extra_args = {NO_IMAGE_KEY: 1, SAME_IMAGE_KEY: "forged", "own": 3}
        bench.scheduler.add_request(one)
    told = [one.sampling_params and one.sampling_params.extra_args for one in (shown, text)]
    assert told[0] == {NO_IMAGE_KEY: False, SAME_IMAGE_KEY: "picture", "own": 3}
    assert told[1] == {NO_IMAGE_KEY: True, SAME_IMAGE_KEY: None, "own": 3}
