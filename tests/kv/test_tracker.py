"""The tracker knows the request of every batch row, through vLLM's own batch as it changes."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import LogitsProcessors
from vllm.v1.worker.gpu_input_batch import CachedRequestState, InputBatch

from tests.kv.harness import IMAGE_TOKEN, IMAGE_TOKENS
from vllm_csp.kv.tracker import (
    SAME_IMAGE_KEY,
    SCHEDULE_KEY,
    SEED_KEY,
    BatchTracker,
    TrackedRequest,
    tracker_of,
)
from vllm_csp.readout.processor import ReadoutProcessor
from vllm_csp.tokens import Schedule, policy

SCHEDULE = policy("csp", 8)
MAX_REQUESTS = 6
MAX_LEN = 512


class Runner:
    """vLLM's `InputBatch` with the plugin's logits processor, as model runner V1 has them."""

    def __init__(self, instance: str) -> None:
        self.tracker = BatchTracker(instance, SCHEDULE, IMAGE_TOKEN)
        config: Any = SimpleNamespace(instance_id=instance)
        device = torch.device("cpu")
        self.batch = InputBatch(
            max_num_reqs=MAX_REQUESTS,
            max_model_len=MAX_LEN,
            max_num_batched_tokens=MAX_LEN,
            device=device,
            vocab_size=32100,
            block_sizes=[16],
            max_num_blocks_per_req=[MAX_LEN // 16],
            logitsprocs=LogitsProcessors([ReadoutProcessor(config, device, False)]),
        )

    def add(
        self, name: str, prompt: list[int], output: list[int], args: dict[str, Any] | None
    ) -> None:
        """A new or resumed request."""
        self.batch.add_request(
            CachedRequestState(
                req_id=name,
                prompt_token_ids=prompt,
                mm_features=[],
                sampling_params=SamplingParams(extra_args=args),
                generator=None,
                block_ids=([0],),
                num_computed_tokens=0,
                output_token_ids=output,
            )
        )

    def refresh(self) -> None:
        """The end of the runner's bookkeeping for a step."""
        self.batch.condense()
        self.batch.refresh_metadata()


def prompt_of(before: int, after: int, image: bool, word: int) -> list[int]:
    return [word] * before + [IMAGE_TOKEN] * (IMAGE_TOKENS * image) + [word] * after


@pytest.mark.parametrize("seed", range(5))
def test_rows_follow_the_batch(seed: int) -> None:
    """400 steps of requests that come, go, are preempted, resume, swap places and are moved up."""
    draw = random.Random(seed)
    runner = Runner(f"random{seed}")
    running: dict[str, TrackedRequest] = {}
    waiting: dict[str, tuple[list[int], dict[str, Any] | None, TrackedRequest]] = {}
    prompts: dict[str, tuple[list[int], dict[str, Any] | None]] = {}
    count = moves = 0
    for _ in range(400):
        for name in [name for name in running if draw.random() < 0.2]:
            runner.batch.remove_request(name)
            expected = running.pop(name)
            if draw.random() < 0.4:  # preempted
                waiting[name] = (*prompts[name], expected)
        while len(running) < MAX_REQUESTS and draw.random() < 0.6:
            if waiting and draw.random() < 0.5:
                name, (prompt, args, expected) = waiting.popitem()
                runner.add(name, prompt, output=[9] * draw.randint(1, 5), args=args)
            else:
                count += 1
                name, image = f"r{count}", draw.random() < 0.6
                before = draw.randint(0, 9)
                prompt = prompt_of(before, draw.randint(1, 9), image, word=count)
                args = draw.choice([None, {}, {SEED_KEY: count}])
                seed_of = count if args else crc32(np.array(prompt, dtype=np.int64).tobytes())
                expected = TrackedRequest(
                    prompt_len=len(prompt),
                    image_start=before if image else 0,
                    image_len=IMAGE_TOKENS * image,
                    seed=seed_of,
                )
                prompts[name] = (prompt, args)
                runner.add(name, prompt, output=[], args=args)
            running[name] = expected
        before_order = list(runner.batch._req_ids)
        runner.batch.condense()
        if len(running) > 1 and draw.random() < 0.3:
            one, other = draw.sample(range(len(running)), 2)
            runner.batch.swap_states(one, other)
        moves += before_order[: len(running)] != runner.batch.req_ids
        runner.batch.refresh_metadata()
        rows = {row: running[name] for row, name in enumerate(runner.batch.req_ids)}
        assert runner.tracker.rows == rows
    assert count > 100 and moves > 50


def test_a_resumed_request_keeps_prompt_length_and_seed() -> None:
    """What it has written is not prompt: its score row and random choice stay the same."""
    runner = Runner("resumed")
    prompt = prompt_of(3, 4, image=True, word=8)
    runner.add("one", prompt, [], None)
    runner.refresh()
    first = runner.tracker.rows[0]
    runner.batch.remove_request("one")
    runner.refresh()
    assert runner.tracker.rows == {}
    runner.add("one", prompt, [5, 6, 7], None)
    runner.refresh()
    assert runner.tracker.rows[0] == first
    assert (first.prompt_len, first.image_start, first.image_len) == (263, 3, IMAGE_TOKENS)


def test_a_row_taken_over_in_one_step_belongs_to_the_new_request() -> None:
    runner = Runner("taken over")
    runner.add("old", prompt_of(1, 1, image=True, word=4), [], None)
    runner.refresh()
    runner.batch.remove_request("old")
    runner.add("new", prompt_of(5, 2, image=False, word=4), [], None)
    runner.refresh()
    assert runner.tracker.rows[0].image_len == 0
    assert list(runner.tracker.rows) == [0]


def test_a_requests_own_schedule_is_read_from_its_arguments() -> None:
    own = policy("csp", 8, cluster="random")
    runner = Runner("own schedule")
    arguments = {SCHEDULE_KEY: own.model_dump_json()}
    runner.add("one", prompt_of(2, 2, image=True, word=3), [], arguments)
    runner.add("two", prompt_of(2, 2, image=True, word=3), [], None)
    runner.refresh()
    assert [runner.tracker.rows[row].schedule for row in (0, 1)] == [own, None]


def test_a_schedule_for_other_images_is_left_out() -> None:
    """A client may send one on vLLM's own routes: of the same budgets, for 1024 image tokens."""
    stages = SCHEDULE.model_dump()["stages"]
    stages[1]["selector"] = {"name": "grid"}
    other = Schedule(num_layers=SCHEDULE.num_layers, num_image_tokens=1024, stages=stages)
    assert other.kept_per_stage == SCHEDULE.kept_per_stage
    runner = Runner("other images")
    arguments = {SCHEDULE_KEY: other.model_dump_json()}
    runner.add("one", prompt_of(2, 2, image=True, word=3), [], arguments)
    runner.refresh()
    assert runner.tracker.rows[0].schedule is None


def test_each_step_is_planned_once_and_anew() -> None:
    """All KV groups of a step share a plan; the next step has its own, also without changes."""
    runner = Runner("planned")
    runner.add("one", prompt_of(4, 6, image=True, word=3), [], None)
    runner.refresh()
    prefill = (torch.tensor([0, 266], dtype=torch.int32), torch.tensor([266], dtype=torch.int32))
    plan = runner.tracker.plan(*prefill)
    assert runner.tracker.plan(*prefill) is plan is runner.tracker.current_plan
    assert [stage.num_rows for stage in plan.stages] == [10 + 64, 266, 10 + 16]
    runner.refresh()
    decode = (torch.tensor([0, 1], dtype=torch.int32), torch.tensor([267], dtype=torch.int32))
    plan = runner.tracker.plan(*decode)
    assert [stage.num_rows for stage in plan.stages] == [1, 1, 1]
    assert [stage.seq_lens.tolist() for stage in plan.stages] == [[75], [267], [27]]


def test_rows_without_a_request_are_text() -> None:
    """vLLM's warm-up batches belong to nobody."""
    tracker = BatchTracker("warm-up", SCHEDULE, IMAGE_TOKEN)
    plan = tracker.plan(
        torch.tensor([0, 300], dtype=torch.int32), torch.tensor([300], dtype=torch.int32)
    )
    assert [stage.num_rows for stage in plan.stages] == [300, 300, 300]


def test_a_tracker_lives_as_long_as_its_model() -> None:
    tracker = BatchTracker("gone soon", SCHEDULE, IMAGE_TOKEN)
    assert tracker_of("gone soon") is tracker
    del tracker
    assert tracker_of("gone soon") is None


SAME = {SAME_IMAGE_KEY: "a picture's content"}


def shared_by(*requests: tuple[int, dict[str, Any] | None]) -> list[int]:
    """Who computes whose prefix, of requests (words before the image, arguments) that begin."""
    runner = Runner("shared")
    lengths = []
    for number, (before, args) in enumerate(requests):
        prompt = prompt_of(before, 2 + number, image=True, word=3)
        lengths.append(len(prompt))
        runner.add(str(number), prompt, [], args)
    runner.refresh()
    plan = runner.tracker.plan(
        torch.tensor(np.cumsum([0, *lengths]), dtype=torch.int32),
        torch.tensor(lengths, dtype=torch.int32),
    )
    return plan.batch.owners(0).tolist()


def test_equal_prompts_up_to_the_image_are_shared() -> None:
    other = {SAME_IMAGE_KEY: "another one"}
    assert shared_by((4, SAME), (4, SAME), (4, other), (4, SAME)) == [0, 0, 2, 0]
    assert shared_by((4, SAME), (5, SAME), (5, SAME)) == [0, 1, 1]
    assert shared_by((4, None), (4, None)) == [0, 1], "nothing is known of their images"


def test_only_requests_of_one_choice_share() -> None:
    own = {**SAME, SCHEDULE_KEY: policy("csp", 8, cluster="uniform").model_dump_json()}
    assert shared_by((4, SAME), (4, own), (4, SAME), (4, own)) == [0, 1, 0, 1]


def test_a_running_request_computes_nothing_for_others() -> None:
    runner = Runner("running")
    prompt = prompt_of(4, 6, image=True, word=3)
    runner.add("runs", prompt, [7], SAME)
    runner.add("begins", prompt, [], SAME)
    runner.refresh()
    plan = runner.tracker.plan(
        torch.tensor([0, 1, 1 + len(prompt)], dtype=torch.int32),
        torch.tensor([len(prompt) + 1, len(prompt)], dtype=torch.int32),
    )
    assert plan.batch.owners(0).tolist() == [0, 1]
