"""The logits processor follows requests through both runners' batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext

from tests.readout.lookup import queries
from vllm_csp.kv.tracker import SCHEDULE_KEY, SEED_KEY
from vllm_csp.readout.processor import IMAGE_KEY, REQUEST_KEY, ReadoutProcessor
from vllm_csp.readout.recorder import Recorder
from vllm_csp.readout.request_keys import give_key, take_back
from vllm_csp.readout.store import ReadoutStore

VOCABULARY = 8
SWAP, MOVE = MoveDirectionality.SWAP, MoveDirectionality.UNIDIRECTIONAL


def parameters(key: str | None) -> SamplingParams:
    extra = None if key is None else {REQUEST_KEY: key, IMAGE_KEY: "image"}
    return SamplingParams(extra_args=extra)


@dataclass
class Worker:
    """A recorder and its processor; `step` plays one engine step."""

    recorder: Recorder
    processor: ReadoutProcessor

    def step(self, values: Sequence[float], context: LogitsContext | None = None) -> None:
        """Sample from rows whose hidden state is `values`."""
        self.recorder.see(torch.tensor(values).unsqueeze(1))
        logits = torch.randn(len(values), VOCABULARY)
        before = logits.clone()
        after = self.processor.apply(logits) if context is None else self._apply(logits, context)
        assert torch.equal(after, before)

    def _apply(self, logits: torch.Tensor, context: LogitsContext) -> torch.Tensor:
        return self.processor.apply(logits, context)

    def values(self, key: str, tokens: Sequence[int]) -> list[float] | None:
        """Hidden states that predicted `tokens`."""
        found = queries(self.recorder.store, key, tokens, range(len(tokens)))
        return None if found is None else found[:, 0].tolist()


def worker(*runner_arguments: Any) -> Worker:
    store = ReadoutStore(lambda key: None, lambda key: None)
    recorder = Recorder("an engine", lambda rows: rows, store)
    config: Any = SimpleNamespace(instance_id="an engine")
    return Worker(recorder, ReadoutProcessor(config, *runner_arguments))


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


def test_v1_records_segmentation_requests_only(runner_v1: Worker, batch: BatchV1) -> None:
    text, one = Request(None), Request("a")
    batch.update({0: text, 1: one})
    batch.step((text, 1.0, 50), (one, 2.0, 100))
    runner_v1.processor.update_state(None)
    batch.step((text, 3.0, 51), (one, 4.0, 101))
    assert runner_v1.values("a", [100, 101]) == [2.0, 4.0]
    assert len(runner_v1.recorder.store) == 1


def test_v1_follows_a_swap(runner_v1: Worker, batch: BatchV1) -> None:
    one, two = Request("a"), Request("b")
    batch.update({0: one, 1: two})
    batch.step((one, 1.0, 100), (two, 2.0, 100))
    batch.update(moved=[(0, 1, SWAP)])
    batch.step((two, 3.0, 101), (one, 4.0, 101))
    assert runner_v1.values("a", [100, 101]) == [1.0, 4.0]
    assert runner_v1.values("b", [100, 101]) == [2.0, 3.0]


def test_v1_follows_a_swap_with_a_request_without_image(runner_v1: Worker, batch: BatchV1) -> None:
    one, text = Request("a"), Request(None)
    batch.update({0: one, 1: text})
    batch.step((one, 1.0, 100), (text, 2.0, 100))
    batch.update(moved=[(0, 1, SWAP)])
    batch.step((text, 3.0, 101), (one, 4.0, 101))
    assert runner_v1.values("a", [100, 101]) == [1.0, 4.0]


def test_v1_condenses_into_a_freed_slot(runner_v1: Worker, batch: BatchV1) -> None:
    one, two, three = Request("a"), Request("b"), Request("c")
    batch.update({0: one, 1: two, 2: three})
    batch.step((one, 1.0, 100), (two, 2.0, 100), (three, 3.0, 100))
    batch.update(removed=[0], moved=[(2, 0, MOVE)])
    batch.step((three, 4.0, 101), (two, 5.0, 101))
    assert runner_v1.values("c", [100, 101]) == [3.0, 4.0]
    assert runner_v1.values("b", [100, 101]) == [2.0, 5.0]
    assert runner_v1.values("a", [100]) == [1.0]


def test_v1_reuses_a_slot_for_another_request(runner_v1: Worker, batch: BatchV1) -> None:
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


def test_v1_goes_on_after_preemption(runner_v1: Worker, batch: BatchV1) -> None:
    one, other = Request("a"), Request("b")
    batch.update({0: one})
    batch.step((one, 1.0, 100))
    batch.step((one, 2.0, 101))
    batch.update(removed=[0])
    batch.update({1: other, 0: one})
    batch.step((one, 3.0, 102), (other, 9.0, 100))
    assert runner_v1.values("a", [100, 101, 102]) == [1.0, 2.0, 3.0]
    assert len(runner_v1.recorder.store) == 2


def test_v1_forgets_the_rows_of_an_unfinished_prefill(runner_v1: Worker, batch: BatchV1) -> None:
    """A prompt split between steps has a row in each; only the last one predicts a token."""
    one = Request("a")
    batch.update({0: one})
    batch.step((one, 1.0, None))
    batch.step((one, 2.0, None))
    batch.step((one, 3.0, 100))
    batch.step((one, 4.0, 101))
    assert runner_v1.values("a", [100, 101]) == [3.0, 4.0]


def test_v1_forgets_the_rows_of_an_unfinished_resumption(runner_v1: Worker, batch: BatchV1) -> None:
    one = Request("a")
    batch.update({0: one})
    batch.step((one, 1.0, 100))
    batch.update(removed=[0])
    batch.update({0: one})
    batch.step((one, 8.0, None))
    batch.step((one, 2.0, 101))
    assert runner_v1.values("a", [100, 101]) == [1.0, 2.0]


def test_v1_goes_on_after_a_step_without_it_in_the_middle_of_its_prefill(
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


def test_v1_keeps_choices_apart_that_were_preempted_together(
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


def test_v1_tells_choices_apart_by_their_tokens(runner_v1: Worker, batch: BatchV1) -> None:
    first, second = Request("a"), Request("a")
    batch.update({0: first, 1: second})
    batch.step((first, 1.0, 20), (second, 2.0, 21))
    batch.step((first, 3.0, 5), (second, 4.0, 5))
    assert runner_v1.values("a", [21, 5]) == [2.0, 4.0]
    assert runner_v1.values("a", [20, 5]) == [1.0, 3.0]


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


def test_v2_takes_part_only_for_segmentation_requests(runner_v2: Worker, slots: SlotsV2) -> None:
    assert slots.admit(runner_v2.processor, 0, "a", done=0)
    assert not slots.admit(runner_v2.processor, 1, None, done=0)


def test_v2_follows_the_rows_of_each_step(runner_v2: Worker, slots: SlotsV2) -> None:
    slots.admit(runner_v2.processor, 5, "a", done=0)
    slots.admit(runner_v2.processor, 2, None, done=0)
    slots.admit(runner_v2.processor, 3, "b", done=0)
    runner_v2.step([1.0, 2.0, 3.0], layout([5, 2, 3], [7, 7, 7], [0, 0, 0]))
    runner_v2.step([4.0, 5.0], layout([3, 5], [30, 20], [1, 1]))
    assert runner_v2.values("a", [20, 21]) == [1.0, 5.0]
    assert runner_v2.values("b", [30, 31]) == [3.0, 4.0]


def test_v2_reuses_a_slot_for_another_request(runner_v2: Worker, slots: SlotsV2) -> None:
    slots.admit(runner_v2.processor, 0, "a", done=0)
    runner_v2.step([1.0], layout([0], [7], [0]))
    slots.admit(runner_v2.processor, 0, None, done=0)
    runner_v2.step([2.0], layout([0], [7], [0]))
    assert runner_v2.values("a", [20]) == [1.0]
    assert runner_v2.values("a", [20, 21]) is None


def test_v2_goes_on_after_preemption(runner_v2: Worker, slots: SlotsV2) -> None:
    slots.admit(runner_v2.processor, 0, "a", done=0)
    runner_v2.step([1.0], layout([0], [7], [0]))
    runner_v2.step([2.0], layout([0], [20], [1]))
    slots.admit(runner_v2.processor, 4, "a", done=2)
    runner_v2.step([3.0], layout([4], [21], [2]))
    assert runner_v2.values("a", [20, 21, 22]) == [1.0, 2.0, 3.0]
    assert len(runner_v2.recorder.store) == 1


def test_v2_forgets_the_rows_of_an_unfinished_prefill(runner_v2: Worker, slots: SlotsV2) -> None:
    slots.admit(runner_v2.processor, 0, "a", done=0)
    slots.admit(runner_v2.processor, 1, "b", done=0)
    runner_v2.step([1.0, 5.0], layout([0, 1], [3, 7], [-4, 0]))
    runner_v2.step([2.0, 6.0], layout([0, 1], [7, 30], [0, 1]))
    assert runner_v2.values("a", [20]) == [2.0]
    assert runner_v2.values("b", [30, 31]) == [5.0, 6.0]


def test_v2_tells_choices_apart_by_the_tokens_fed(runner_v2: Worker, slots: SlotsV2) -> None:
    slots.admit(runner_v2.processor, 0, "a", done=0)
    slots.admit(runner_v2.processor, 1, "a", done=0)
    runner_v2.step([1.0, 2.0], layout([0, 1], [7, 7], [0, 0]))
    runner_v2.step([3.0, 4.0], layout([1, 0], [21, 20], [1, 1]))
    assert runner_v2.values("a", [20, 5]) == [1.0, 4.0]
    assert runner_v2.values("a", [21, 5]) == [2.0, 3.0]


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (SamplingParams(prompt_logprobs=1), "prompt_logprobs"),
        (SamplingParams(prompt_logprobs=0), "prompt_logprobs"),
        (
            SamplingParams(structured_outputs=StructuredOutputsParams(json_object=True)),
            "structured outputs",
        ),
        (SamplingParams(extra_args={REQUEST_KEY: ["a"]}), REQUEST_KEY),
        (SamplingParams(extra_args={REQUEST_KEY: "a client's"}), REQUEST_KEY),
        (SamplingParams(extra_args={IMAGE_KEY: "a client's"}), IMAGE_KEY),
        (SamplingParams(extra_args={SEED_KEY: "5"}), SEED_KEY),
        (SamplingParams(extra_args={SCHEDULE_KEY: 5}), SCHEDULE_KEY),
        (SamplingParams(extra_args={SCHEDULE_KEY: "{}"}), "Schedule"),
    ],
)
def test_what_would_stop_the_engine_is_refused(refused: SamplingParams, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        ReadoutProcessor.validate_params(refused)


def test_ordinary_requests_are_not_refused() -> None:
    for accepted in (parameters(None), SamplingParams(logprobs=2, n=3)):
        ReadoutProcessor.validate_params(accepted)


def test_a_key_counts_until_it_is_taken_back() -> None:
    own = parameters(give_key())
    ReadoutProcessor.validate_params(own)
    assert own.extra_args is not None
    take_back(own.extra_args[REQUEST_KEY])
    with pytest.raises(ValueError, match="the server's own"):
        ReadoutProcessor.validate_params(own)
