"""The logits processor follows requests through the batches of runner V2."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

from tests.readout.readout_worker import Worker, parameters, worker
from vllm_csp.readout.processor import ReadoutProcessor

PROMPT_LENGTH = 10


class SlotsV2:
    """Runner V2's view: request slots with lengths, and a step's layout."""

    def __init__(self, slots: int = 8) -> None:
        lengths = [SimpleNamespace(np=np.zeros(slots, np.int32)) for _ in range(2)]
        self.prompt_len, self.prefill_len = lengths

    def admit(self, processor: ReadoutProcessor, slot: int, key: str | None, done: int) -> bool:
        """A request, `done` tokens of its answer being there already."""
        self.prompt_len.np[slot] = PROMPT_LENGTH
        self.prefill_len.np[slot] = PROMPT_LENGTH + done
        return processor.add_request(slot, parameters(key))


def layout(slots: Sequence[int], fed: Sequence[int], indexes: Sequence[int]) -> LogitsContext:
    """Per row its slot, the token fed, and which output token it predicts (below 0: prefill)."""
    order = torch.tensor(slots)
    zeros = torch.zeros(len(slots), dtype=torch.int64)
    return LogitsContext(
        expanded_idx_mapping=order,
        idx_mapping=order,
        idx_mapping_np=order.numpy(),
        expanded_local_pos=zeros,
        input_ids=torch.tensor(fed),
        pos=zeros,
        seq_lens_upper_bound_np=np.array(indexes) + PROMPT_LENGTH,
    )


@pytest.fixture
def slots() -> SlotsV2:
    return SlotsV2()


@pytest.fixture
def runner_v2(slots: SlotsV2) -> Worker:
    return worker(slots)


def test_it_takes_part_only_for_segmentation_requests(runner_v2: Worker, slots: SlotsV2) -> None:
    assert slots.admit(runner_v2.processor, 0, "a", done=0)
    assert not slots.admit(runner_v2.processor, 1, None, done=0)


def test_it_follows_the_rows_of_each_step(runner_v2: Worker, slots: SlotsV2) -> None:
    slots.admit(runner_v2.processor, 5, "a", done=0)
    slots.admit(runner_v2.processor, 2, None, done=0)
    slots.admit(runner_v2.processor, 3, "b", done=0)
    runner_v2.step([1.0, 2.0, 3.0], layout([5, 2, 3], [7, 7, 7], [0, 0, 0]))
    runner_v2.step([4.0, 5.0], layout([3, 5], [30, 20], [1, 1]))
    assert runner_v2.values("a", [20, 21]) == [1.0, 5.0]
    assert runner_v2.values("b", [30, 31]) == [3.0, 4.0]


def test_it_reuses_a_slot_for_another_request(runner_v2: Worker, slots: SlotsV2) -> None:
    slots.admit(runner_v2.processor, 0, "a", done=0)
    runner_v2.step([1.0], layout([0], [7], [0]))
    slots.admit(runner_v2.processor, 0, None, done=0)
    runner_v2.step([2.0], layout([0], [7], [0]))
    assert runner_v2.values("a", [20]) == [1.0]
    assert runner_v2.values("a", [20, 21]) is None


def test_it_goes_on_after_preemption(runner_v2: Worker, slots: SlotsV2) -> None:
    slots.admit(runner_v2.processor, 0, "a", done=0)
    runner_v2.step([1.0], layout([0], [7], [0]))
    runner_v2.step([2.0], layout([0], [20], [1]))
    slots.admit(runner_v2.processor, 4, "a", done=2)
    runner_v2.step([3.0], layout([4], [21], [2]))
    assert runner_v2.values("a", [20, 21, 22]) == [1.0, 2.0, 3.0]
    assert len(runner_v2.recorder.store) == 1


def test_it_forgets_the_rows_of_an_unfinished_prefill(runner_v2: Worker, slots: SlotsV2) -> None:
    slots.admit(runner_v2.processor, 0, "a", done=0)
    slots.admit(runner_v2.processor, 1, "b", done=0)
    runner_v2.step([1.0, 5.0], layout([0, 1], [3, 7], [-4, 0]))
    runner_v2.step([2.0, 6.0], layout([0, 1], [7, 30], [0, 1]))
    assert runner_v2.values("a", [20]) == [2.0]
    assert runner_v2.values("b", [30, 31]) == [5.0, 6.0]


def test_it_forgets_the_rows_of_an_unfinished_resumption(runner_v2: Worker, slots: SlotsV2) -> None:
    """The answer's beginning is prefilled again, and a chunk may end in the midst of it."""
    slots.admit(runner_v2.processor, 0, "a", done=0)
    for index, fed in enumerate([7, 20, 21]):
        runner_v2.step([float(index)], layout([0], [fed], [index]))
    slots.admit(runner_v2.processor, 4, "a", done=3)
    for unfinished in (-4, 0, 1):
        runner_v2.step([9.0], layout([4], [20], [unfinished]))
    runner_v2.step([3.0], layout([4], [22], [3]))
    runner_v2.step([4.0], layout([4], [23], [4]))
    assert runner_v2.values("a", [20, 21, 22, 23, 24]) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_request_whose_rows_are_gone_has_no_masks_of_later_ones(
    runner_v2: Worker, slots: SlotsV2
) -> None:
    slots.admit(runner_v2.processor, 0, "a", done=0)
    runner_v2.step([0.0], layout([0], [7], [0]))
    runner_v2.recorder.store.release("a")
    slots.admit(runner_v2.processor, 4, "a", done=1)
    runner_v2.step([1.0], layout([4], [20], [1]))
    assert runner_v2.values("a", [20]) is None


def test_it_tells_choices_apart_by_the_tokens_fed(runner_v2: Worker, slots: SlotsV2) -> None:
    slots.admit(runner_v2.processor, 0, "a", done=0)
    slots.admit(runner_v2.processor, 1, "a", done=0)
    runner_v2.step([1.0, 2.0], layout([0, 1], [7, 7], [0, 0]))
    runner_v2.step([3.0, 4.0], layout([1, 0], [21, 20], [1, 1]))
    assert runner_v2.values("a", [20, 5]) == [1.0, 4.0]
    assert runner_v2.values("a", [21, 5]) == [2.0, 3.0]
