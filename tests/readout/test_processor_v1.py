"""The logits processor follows requests through the batches of runner V1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality

from tests.readout.readout_worker import Worker, parameters, worker

SWAP, MOVE = MoveDirectionality.SWAP, MoveDirectionality.UNIDIRECTIONAL


@pytest.fixture
def runner_v1() -> Worker:
    return worker(torch.device("cpu"), False)


@dataclass
class Request:
    """A request, with what runner V1 keeps of it while it is out of the batch."""

    key: str | None
    outputs: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.parameters = parameters(self.key)


class BatchV1:
    """The persistent batch of runner V1: slots with a request's output tokens."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def update(
        self,
        added: Mapping[int, Request] | None = None,
        removed: Sequence[int] = (),
        moved: Sequence[tuple[int, int, MoveDirectionality]] = (),
    ) -> None:
        """What changed before a step; the prompt is always [1, 7]."""
        rows = [
            (index, one.parameters, [1, 7], one.outputs) for index, one in (added or {}).items()
        ]
        self._worker.processor.update_state(
            BatchUpdate(batch_size=0, removed=removed, added=rows, moved=moved)
        )

    def step(self, *rows: tuple[Request, float, int | None]) -> None:
        """Per row its request, its hidden state, and the token sampled; None: prefill goes on."""
        self._worker.step([value for _, value, _ in rows])
        for request, _, token in rows:
            if token is not None:
                request.outputs.append(token)


@pytest.fixture
def batch(runner_v1: Worker) -> BatchV1:
    return BatchV1(runner_v1)


def test_logits_pass_unchanged_and_greedy_batches_are_recorded_too(runner_v1: Worker) -> None:
    assert not runner_v1.processor.is_argmax_invariant()
    runner_v1.step([1.0, 2.0])


def test_it_records_segmentation_requests_only(runner_v1: Worker, batch: BatchV1) -> None:
    text, one = Request(None), Request("a")
    batch.update({0: text, 1: one})
    batch.step((text, 1.0, 50), (one, 2.0, 100))
    runner_v1.processor.update_state(None)
    batch.step((text, 3.0, 51), (one, 4.0, 101))
    assert runner_v1.values("a", [100, 101]) == [2.0, 4.0]
    assert len(runner_v1.recorder.store) == 1


def test_it_follows_a_swap(runner_v1: Worker, batch: BatchV1) -> None:
    one, two = Request("a"), Request("b")
    batch.update({0: one, 1: two})
    batch.step((one, 1.0, 100), (two, 2.0, 100))
    batch.update(moved=[(0, 1, SWAP)])
    batch.step((two, 3.0, 101), (one, 4.0, 101))
    assert runner_v1.values("a", [100, 101]) == [1.0, 4.0]
    assert runner_v1.values("b", [100, 101]) == [2.0, 3.0]


def test_it_follows_a_swap_with_a_request_without_image(runner_v1: Worker, batch: BatchV1) -> None:
    one, text = Request("a"), Request(None)
    batch.update({0: one, 1: text})
    batch.step((one, 1.0, 100), (text, 2.0, 100))
    batch.update(moved=[(0, 1, SWAP)])
    batch.step((text, 3.0, 101), (one, 4.0, 101))
    assert runner_v1.values("a", [100, 101]) == [1.0, 4.0]


def test_it_condenses_into_a_freed_slot(runner_v1: Worker, batch: BatchV1) -> None:
    one, two, three = Request("a"), Request("b"), Request("c")
    batch.update({0: one, 1: two, 2: three})
    batch.step((one, 1.0, 100), (two, 2.0, 100), (three, 3.0, 100))
    batch.update(removed=[0], moved=[(2, 0, MOVE)])
    batch.step((three, 4.0, 101), (two, 5.0, 101))
    assert runner_v1.values("c", [100, 101]) == [3.0, 4.0]
    assert runner_v1.values("b", [100, 101]) == [2.0, 5.0]
    assert runner_v1.values("a", [100]) == [1.0]


def test_it_reuses_a_slot_for_another_request(runner_v1: Worker, batch: BatchV1) -> None:
    one, two, text = Request("a"), Request("b"), Request(None)
    batch.update({0: one})
    batch.step((one, 1.0, 100))
    batch.update({0: two}, removed=[0])
    batch.step((two, 2.0, 100))
    batch.update({0: text})
    batch.step((text, 3.0, 100))
    assert runner_v1.values("a", [100]) == [1.0]
    assert runner_v1.values("b", [100]) == [2.0]
    assert runner_v1.values("b", [100, 101]) is None


def test_it_goes_on_after_preemption(runner_v1: Worker, batch: BatchV1) -> None:
    one, other = Request("a"), Request("b")
    batch.update({0: one})
    batch.step((one, 1.0, 100))
    batch.step((one, 2.0, 101))
    batch.update(removed=[0])
    batch.update({1: other, 0: one})
    batch.step((one, 3.0, 102), (other, 9.0, 100))
    assert runner_v1.values("a", [100, 101, 102]) == [1.0, 2.0, 3.0]
    assert len(runner_v1.recorder.store) == 2


def test_it_forgets_the_rows_of_an_unfinished_prefill(runner_v1: Worker, batch: BatchV1) -> None:
    """A prompt split between steps has a row in each; only the last one predicts a token."""
    one = Request("a")
    batch.update({0: one})
    batch.step((one, 1.0, None))
    batch.step((one, 2.0, None))
    batch.step((one, 3.0, 100))
    batch.step((one, 4.0, 101))
    assert runner_v1.values("a", [100, 101]) == [3.0, 4.0]


def test_it_forgets_the_rows_of_an_unfinished_resumption(runner_v1: Worker, batch: BatchV1) -> None:
    one = Request("a")
    batch.update({0: one})
    batch.step((one, 1.0, 100))
    batch.update(removed=[0])
    batch.update({0: one})
    batch.step((one, 8.0, None))
    batch.step((one, 2.0, 101))
    assert runner_v1.values("a", [100, 101]) == [1.0, 2.0]


def test_it_goes_on_after_a_step_without_it_in_the_middle_of_its_prefill(
    runner_v1: Worker, batch: BatchV1
) -> None:
    """A request that gets no tokens in a step leaves the batch and comes back, without output."""
    one = Request("a")
    batch.update({0: one})
    batch.step((one, 1.0, None))
    batch.update(removed=[0])
    batch.update({0: one})
    batch.step((one, 2.0, 100))
    assert runner_v1.values("a", [100]) == [2.0]
    assert len(runner_v1.recorder.store) == 1


def test_it_keeps_choices_apart_that_were_preempted_together(
    runner_v1: Worker, batch: BatchV1
) -> None:
    first, second = Request("a"), Request("a")
    batch.update({0: first, 1: second})
    batch.step((first, 1.0, 20), (second, 1.0, 21))
    batch.step((first, 2.0, 30), (second, 3.0, 30))
    batch.update(removed=[1, 0])
    batch.update({0: second, 1: first})
    batch.step((second, 4.0, 40), (first, 5.0, 40))
    assert runner_v1.values("a", [20, 30, 40]) == [1.0, 2.0, 5.0]
    assert runner_v1.values("a", [21, 30, 40]) == [1.0, 3.0, 4.0]


def test_it_tells_choices_apart_by_their_tokens(runner_v1: Worker, batch: BatchV1) -> None:
    first, second = Request("a"), Request("a")
    batch.update({0: first, 1: second})
    batch.step((first, 1.0, 20), (second, 2.0, 21))
    batch.step((first, 3.0, 5), (second, 4.0, 5))
    assert runner_v1.values("a", [21, 5]) == [2.0, 4.0]
    assert runner_v1.values("a", [20, 5]) == [1.0, 3.0]
