"""Runner V2's hooks, without a GPU: the tracker learns which request each batch row is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.config.compilation import CUDAGraphMode
from vllm.v1.core.sched.output import NewRequestData
from vllm.v1.worker.gpu.model_states.default import DefaultModelState

from vllm_csp.kv.model_state import StagedModelState
from vllm_csp.kv.tracker import NO_IMAGE_KEY, BatchTracker
from vllm_csp.tokens import policy

IMAGE_TOKEN = 900
SCHEDULE = policy("csp", 8, 256)
PROMPT = [1, 5, *[IMAGE_TOKEN] * 256, 7, 8]


@pytest.fixture
def state() -> StagedModelState:
    """The state, with what its constructor would take from an engine."""
    made = object.__new__(StagedModelState)
    made.rope_state = made.prompt_embeds_state = made.mm_pruner = None
    made.supports_mm_inputs = False
    made.model_config = SimpleNamespace(max_model_len=512)
    made._tracker = BatchTracker("model-state-test", SCHEDULE, IMAGE_TOKEN)
    made._requests = {}
    return made


def add(state: StagedModelState, name: str, slot: int, prompt: list[int], **args: Any) -> None:
    params = SamplingParams(extra_args=args or None)
    state.add_request(
        slot,
        NewRequestData(
            req_id=name,
            prompt_token_ids=prompt,
            mm_features=[],
            sampling_params=params,
            pooling_params=None,
            block_ids=([],),
            num_computed_tokens=0,
            lora_request=None,
        ),
    )


def step(state: StagedModelState, scheduled: dict[str, tuple[int, int]]) -> dict[str, Any]:
    """Prepare a step of requests with (computed, scheduled) tokens; no layer asks for metadata."""
    computed = np.array([pair[0] for pair in scheduled.values()])
    new = np.array([pair[1] for pair in scheduled.values()], dtype=np.int32)
    starts = np.concatenate([[0], new.cumsum()]).astype(np.int32)
    lengths = torch.tensor(computed + new, dtype=torch.int32)
    count = len(scheduled)
    batch = SimpleNamespace(
        req_ids=list(scheduled),
        num_reqs=count,
        num_tokens=int(starts[-1]),
        query_start_loc_np=starts,
        query_start_loc=torch.from_numpy(starts),
        max_query_len=int(new.max()),
        num_scheduled_tokens=new,
        seq_lens=lengths,
        seq_lens_cpu_upper_bound=lengths,
        dcp_local_seq_lens=None,
        dcp_local_seq_lens_cpu_upper_bound=None,
        positions=None,
        is_prefilling_np=new > 1,
        prompt_lens=None,
        idx_mapping_np=np.arange(count),
        fast_prefill=None,
    )
    cache_config = SimpleNamespace(kv_cache_groups=[])
    no_tensor = torch.empty(0)
    metadata = state.prepare_attn(batch, CUDAGraphMode.NONE, (), no_tensor, [], cache_config)
    state._tracker.plan(torch.from_numpy(starts), lengths)
    return metadata


def test_rows_follow_the_batch_order(state: StagedModelState) -> None:
    add(state, "a", 3, PROMPT)
    add(state, "b", 0, [1, 2, 3])
    assert step(state, {"b": (0, 3), "a": (0, 260)}) == {}
    plan = state._tracker.current_plan
    assert plan.image_requests.tolist() == [1]
    assert [stage.num_rows for stage in plan.stages] == [3 + 4 + kept for kept in (64, 256, 16)]
    step(state, {"a": (260, 1), "b": (3, 1)})
    plan = state._tracker.current_plan
    assert plan.image_requests.tolist() == []
    assert [stage.seq_lens.tolist() for stage in plan.stages] == [
        [5 + kept, 4] for kept in (64, 256, 16)
    ]


def test_a_resumed_request_is_planned_like_a_new_one(state: StagedModelState) -> None:
    add(state, "a", 0, PROMPT)
    state.remove_request("a")
    add(state, "a", 5, PROMPT)
    step(state, {"a": (0, 263)})
    plan = state._tracker.current_plan
    assert [stage.num_rows for stage in plan.stages] == [7 + kept for kept in (64, 256, 16)]


def test_dummy_batches_and_removed_requests_have_no_image(state: StagedModelState) -> None:
    add(state, "a", 0, PROMPT)
    state.remove_request("a")
    step(state, {"a": (0, 260), "req_0_warmup": (0, 4)})
    assert state._tracker.current_plan.image_requests.tolist() == []


def test_image_tokens_without_an_image_are_text(state: StagedModelState) -> None:
    add(state, "a", 0, PROMPT, **{NO_IMAGE_KEY: True})
    step(state, {"a": (0, 260)})
    assert state._tracker.current_plan.image_requests.tolist() == []


def test_it_is_the_state_vllm_gives_llava_with_three_hooks() -> None:
    own = {name for name in vars(StagedModelState) if not name.startswith("__")}
    assert issubclass(StagedModelState, DefaultModelState)
    assert own - {"_abc_impl"} == {"add_request", "remove_request", "prepare_attn"}
