"""TokenPlan equals a token-by-token reading of every batch."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vllm_csp.tokens import Batch, PlanError, Schedule, TokenPlan, policy
from vllm_csp.tokens import plan as plan_module
from vllm_csp.tokens.plan import on_device
from vllm_csp.tokens.selectors import readout_attention_scores

from . import reference
from .reference import Request

N = 16


def schedule(budgets: list[int], question: bool) -> Schedule:
    stages, previous = [], N
    for layer, budget in enumerate([N, *budgets]):
        guided = question and layer > 0 and budget <= previous
        rule = "attention" if guided else {"name": "random", "seed_per": "image"}
        if budget == N:
            rule = "all"
        stage = {"first_layer": layer, "last_layer": layer + 1, "selector": rule, "budget": budget}
        if not stages or rule == "attention" or stages[-1]["budget"] != budget:
            stages.append(stage)
        else:
            stages[-1]["last_layer"] = layer + 1
        previous = budget
    return Schedule(num_layers=len(budgets) + 1, num_image_tokens=N, stages=stages)


def batch_of(requests: list[Request]) -> Batch:
    def column(name: str) -> np.ndarray:
        return np.array([getattr(r, name) for r in requests], dtype=np.int64)

    return Batch(
        num_computed_tokens=column("computed"),
        num_scheduled_tokens=column("scheduled"),
        prompt_len=column("prompt"),
        image_start=column("image_start"),
        image_len=column("image_len"),
    )


@st.composite
def steps(draw: st.DrawFn) -> tuple[Schedule, list[Request]]:
    question = draw(st.booleans())
    plan = schedule(draw(st.lists(st.integers(1, N), min_size=1, max_size=3)), question)
    rng = random.Random(draw(st.integers(0, 2**16)))
    requests = []
    for _ in range(draw(st.integers(0, 6))):
        kinds = ["prefill", "resume", "decode", "spec", "text", "text_chunk", "idle"]
        if not plan.depends_on_question:
            kinds += ["prefix_hit", "before_image", "text_cached"]
        kind = draw(st.sampled_from(kinds))
        before, after = rng.randint(0, 5), rng.randint(1, 6)
        image = 0 if kind.startswith("text") else N
        prompt = before + image + after
        generated = rng.randint(1, 9)
        computed, scheduled = {
            "prefill": (0, prompt),
            "resume": (0, prompt + generated),
            "decode": (prompt + generated, 1),
            "spec": (prompt + generated, 4),
            "idle": (prompt + generated, 0),
            "text": (0, prompt),
            "text_chunk": (rng.randint(0, prompt - 1), 1),
            "prefix_hit": (before + N + rng.randint(0, after - 1), generated),
            "before_image": (0, rng.randint(0, before)),
            "text_cached": (rng.randint(0, before), prompt),
        }[kind]
        if kind == "text_cached":
            image = N
            prompt = before + N + after
            scheduled = prompt - computed
        kept = [sorted(rng.sample(range(N), s.budget)) for s in plan.stages]
        requests.append(Request(computed, scheduled, prompt, before, image, kept))
    return plan, requests


@settings(max_examples=250, deadline=None)
@given(steps())
def test_a_plan_equals_the_token_by_token_reading(step: tuple[Schedule, list[Request]]) -> None:
    plan_schedule, requests = step
    batch = batch_of(requests)
    plan = TokenPlan.build(batch, plan_schedule)
    owners = [i for i, r in enumerate(requests) if reference.has_image_now(r)]
    assert plan.image_requests.tolist() == owners
    assert plan.num_rows == sum(r.scheduled for r in requests)
    block_size, rng = 4, np.random.default_rng(0)
    table = rng.permutation(64 * len(requests)).reshape(len(requests), 64).astype(np.int32)
    for index, stage in enumerate(plan.stages):
        rows, ranks, row_owners = reference.stage_rows(requests, index)
        selected = torch.tensor([requests[i].kept[index] for i in owners], dtype=torch.int64)
        filled = stage.fill(selected.reshape(len(owners), stage.budget))
        assert filled.tolist() == rows
        assert stage.ranks.tolist() == ranks
        assert stage.requests.tolist() == row_owners
        counts = [row_owners.count(i) for i in range(len(requests))]
        assert stage.query_start_loc.tolist() == np.cumsum([0, *counts]).tolist()
        lengths = [reference.rank(r, index, r.computed + r.scheduled) for r in requests]
        assert stage.seq_lens.tolist() == lengths
        assert stage.max_query_len == max(counts, default=0)
        assert stage.max_seq_len == max(lengths, default=0)
        slots = [
            int(table[o, r // block_size]) * block_size + r % block_size
            for o, r in zip(row_owners, ranks, strict=True)
        ]
        assert stage.slot_mapping(torch.from_numpy(table), block_size).tolist() == slots
        assert stage.is_identity == (stage.budget == N or not owners)
        assert not stage.is_identity or rows == list(range(plan.num_rows))
        image = [[rows.index(row) for row in _image_rows(requests, i, index)] for i in owners]
        assert stage.image_slots.tolist() == image


def _image_rows(requests: list[Request], owner: int, stage: int) -> list[int]:
    start = sum(r.scheduled for r in requests[:owner])
    request = requests[owner]
    return [start + request.image_start - request.computed + k for k in request.kept[stage]]


@settings(max_examples=60, deadline=None)
@given(steps())
def test_image_rows_are_those_of_the_full_batch(step: tuple[Schedule, list[Request]]) -> None:
    plan_schedule, requests = step
    plan = TokenPlan.build(batch_of(requests), plan_schedule)
    owners = [i for i, request in enumerate(requests) if reference.has_image_now(request)]
    assert plan.image_requests.tolist() == owners
    starts = np.cumsum([0] + [r.scheduled for r in requests])
    images = [
        [starts[i] + requests[i].image_start - requests[i].computed + k for k in range(N)]
        for i in plan.image_requests
    ]
    assert plan.image_rows.tolist() == images


@settings(max_examples=60, deadline=None)
@given(steps())
def test_score_rows_find_query_keys_and_image_of_each_request(
    step: tuple[Schedule, list[Request]],
) -> None:
    plan_schedule, requests = step
    batch = batch_of(requests)
    plan = TokenPlan.build(batch, plan_schedule)
    if any(requests[i].computed for i in plan.image_requests):
        return
    for index, stage in enumerate(plan.stages):
        found = stage.score_rows(batch)
        selected = [requests[i].kept[index] for i in plan.image_requests]
        rows = stage.fill(
            torch.tensor(selected, dtype=torch.int64).reshape(len(selected), stage.budget)
        ).tolist()
        for place, owner in enumerate(plan.image_requests):
            request = requests[owner]
            start = int(plan.query_start_loc[owner])
            assert rows[found.query[place]] == start + request.prompt - 1
            keys = [rows[k] for k in found.keys[place][found.key_mask[place]]]
            wanted = [
                start + p for p in range(request.prompt) if reference.keeps(request, index, p)
            ]
            assert keys == wanted
            image = [rows[found.keys[place][c]] for c in found.image_columns[place]]
            assert image == [start + request.image_start + k for k in request.kept[index]]


def one(computed: int, scheduled: int, prompt: int = 24, start: int = 4, image: int = N) -> Batch:
    return batch_of([Request(computed, scheduled, prompt, start, image, [])])


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (one(0, 10), "chunked prefill"),
        (one(10, 14), "chunked prefill"),
        (one(5, 3), "chunked prefill"),
        (one(0, 24, image=9), "16 tokens of the schedule"),
        (one(0, 24, prompt=18), "beyond its prompt"),
    ],
)
def test_a_split_or_wrong_image_is_refused_with_the_reason(batch: Batch, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        TokenPlan.build(batch, schedule([4], question=False))


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (one(2, 22), "not prefilled whole"),
        (one(0, 22), "not prefilled whole"),
        (one(21, 3), "not prefilled whole"),
        (one(0, 3), "not prefilled whole"),
        (one(0, 20, prompt=20), "question after the image"),
    ],
)
def test_a_guided_schedule_refuses_prompts_in_parts(batch: Batch, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        TokenPlan.build(batch, schedule([4], question=True))


def test_bad_arrays_are_refused() -> None:
    with pytest.raises(PlanError, match="one value per request"):
        Batch(*(np.zeros(n, np.int64) for n in (2, 2, 2, 2, 1)))
    with pytest.raises(PlanError, match="negative"):
        one(-1, 1)


def test_a_preempted_request_is_scored_by_the_same_row_as_before() -> None:
    guided = schedule([4], question=True)
    first, again = TokenPlan.build(one(0, 24), guided), TokenPlan.build(one(0, 31), guided)
    keys = torch.randn(31, 2, 8, generator=torch.Generator().manual_seed(0))
    scores = []
    for plan in (first, again):
        rows = plan.stages[0].score_rows(plan.batch)
        query = keys[torch.from_numpy(rows.query)]
        held = keys[torch.from_numpy(rows.keys)]
        mask, image = torch.from_numpy(rows.key_mask), torch.from_numpy(rows.image_columns)
        scores.append(readout_attention_scores(query, held, mask, image))
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=0)


def test_equal_budgets_share_one_plan() -> None:
    plan = TokenPlan.build(one(0, 24), policy("csp", 8, N, cluster_tokens=4, prune_tokens=4))
    assert plan.stages[0] is plan.stages[2]


def test_rows_behind_the_score_rows_see_them_and_themselves() -> None:
    """A [SEG] behind each prompt, at the end of the stage's rows."""
    keys = torch.randn(43, 2, 8, generator=torch.Generator().manual_seed(0))
    batch = Batch(*np.array([[0, 0], [22, 19], [20, 19], [2, 1], [N, N]]))
    plan = TokenPlan.build(batch, schedule([N], question=True))
    stage = plan.stages[0]
    rows = stage.score_rows(batch)
    behind = rows.followed(stage.num_rows)
    assert behind.query.tolist() == [41, 42]
    found = readout_attention_scores(
        keys[torch.from_numpy(behind.query)],
        keys[torch.from_numpy(behind.keys)],
        torch.from_numpy(behind.key_mask),
        torch.from_numpy(behind.image_columns),
    )
    # Of the first request only the prompt's 20 rows, not the 2 that it has generated.
    for request, (first, last, image) in enumerate([(0, 20, 2), (22, 41, 1)]):
        seen = torch.cat((keys[first:last], keys[41 + request][None]))
        logits = torch.einsum("hd,shd->hs", keys[41 + request], seen) / 8**0.5
        expected = logits.softmax(1).mean(0)[image : image + N]
        torch.testing.assert_close(found[request], expected)


def test_the_last_block_stands_for_those_beyond_the_table() -> None:
    stage = TokenPlan.build(one(0, 24), schedule([4], question=False)).stages[0]
    slots = stage.slot_mapping(torch.tensor([[5, 7]]), 4).tolist()
    assert slots[:8] == [20, 21, 22, 23, 28, 29, 30, 31]
    assert set(slots[8:]) == {28, 29, 30, 31}


def test_kv_groups_of_a_stage_share_what_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    def counted(array: NDArray[Any], device: torch.device) -> torch.Tensor:
        sent.append(array.size)
        return on_device(array, device)

    monkeypatch.setattr(plan_module, "on_device", counted)
    stage = TokenPlan.build(one(0, 24), schedule([4], question=False)).stages[0]
    tables = [torch.arange(first, first + 8)[None] for first in (0, 40)]
    first, second = (stage.slot_mapping(table, 4) for table in tables)
    assert torch.equal(second, first + 160)
    cpu = torch.device("cpu")
    assert stage.lengths(cpu) is stage.lengths(cpu)
    assert len(sent) == 2, "one array of places, one of lengths"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_nothing_waits_for_the_device() -> None:
    device = torch.device("cuda")
    plan = TokenPlan.build(one(0, 24), schedule([4], question=True))
    selected = torch.arange(4, device=device)[None]
    table = torch.arange(8, device=device, dtype=torch.int32)[None]
    stage = plan.stages[-1]
    torch.cuda.set_sync_debug_mode("error")
    try:
        rows, slots = stage.fill(selected), stage.slot_mapping(table, 4)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert rows.cpu().tolist() == stage.fill(selected.cpu()).tolist()
    assert slots.cpu().tolist() == stage.slot_mapping(table.cpu(), 4).tolist()
