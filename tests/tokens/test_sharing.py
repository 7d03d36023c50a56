"""Requests that leave their prompt up to the image's end to another one, token by token."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vllm_csp.tokens import Batch, PlanError, Schedule, TokenPlan, policy
from vllm_csp.tokens.plan import StagePlan

from .test_plan import N, schedule


@dataclass
class Step:
    """A batch in which some requests share, the same without sharing, and what stages keep."""

    schedule: Schedule
    shared: Batch
    apart: Batch
    kept: list[torch.Tensor]

    @property
    def starts(self) -> list[int]:
        """First row of each request in the full batch."""
        return np.cumsum([0, *self.shared.num_scheduled_tokens]).tolist()


@st.composite
def steps(draw: st.DrawFn) -> Step:
    plan = schedule(draw(st.lists(st.integers(1, N), min_size=1, max_size=3)), draw(st.booleans()))
    rng = random.Random(draw(st.integers(0, 2**16)))
    lengths = [rng.randint(0, 4) for _ in range(2)]
    computed, scheduled, prompt, start, image, beginning = [], [], [], [], [], []
    for _ in range(draw(st.integers(1, 7))):
        kind = rng.choice(["first", "first", "first", "second", "decode", "text"])
        before, after = lengths[kind == "second"], rng.randint(1, 5)
        length = 0 if kind == "text" else N
        prompt.append(before + length + after)
        computed.append(prompt[-1] + 3 if kind == "decode" else 0)
        scheduled.append(1 if kind == "decode" else prompt[-1] + rng.choice([0, 0, 3]))
        start.append(before)
        image.append(length)
        beginning.append(kind if kind in ("first", "second") else len(beginning))
    fields = {
        "num_computed_tokens": np.array(computed),
        "num_scheduled_tokens": np.array(scheduled),
        "prompt_len": np.array(prompt),
        "image_start": np.array(start),
        "image_len": np.array(image),
    }
    shared = Batch(
        **fields,
        prefix_of=np.array([beginning.index(one) for one in beginning]),
        shared_stages=np.full(len(prompt), plan.image_stages),
    )
    apart = Batch(**fields)
    owners = np.flatnonzero(apart.image_now).tolist()
    kept = []
    for stage, each in enumerate(plan.stages):
        own: dict[int, list[int]] = {}
        for owner in owners:
            # By the image alone: what its first request keeps is what all of them keep.
            first = int(shared.owners(stage)[owner])
            own[owner] = own[first] if first != owner else sorted(rng.sample(range(N), each.budget))
        kept.append(
            torch.tensor([own[one] for one in owners], dtype=torch.int64).reshape(-1, each.budget)
        )
    return Step(plan, shared, apart, kept)


def both(step: Step) -> list[tuple[StagePlan, StagePlan]]:
    """Each stage's plan with and without sharing."""
    together, apart = (TokenPlan.build(one, step.schedule) for one in (step.shared, step.apart))
    return list(zip(together.stages, apart.stages, strict=True))


def cached(stage: StagePlan, kept: torch.Tensor) -> dict[tuple[int, int], int]:
    """Row of the full batch whose key and value each request has at each place of its cache."""
    rows = stage.fill(kept).tolist()
    copies = stage.copies
    requests = np.concatenate((stage.requests, copies.requests)).tolist()
    ranks = np.concatenate((stage.ranks, copies.ranks)).tolist()
    held = [*rows, *(rows[one] for one in copies.rows)]
    found = {(a, b): row for a, b, row in zip(requests, ranks, held, strict=True)}
    assert len(found) == len(held), "written twice"
    return found


@settings(max_examples=200, deadline=None)
@given(steps())
def test_every_place_of_the_cache_holds_the_same_token(step: Step) -> None:
    starts = step.starts
    for index, (one, other) in enumerate(both(step)):
        holder = step.shared.owners(index)
        found, expected = cached(one, step.kept[index]), cached(other, step.kept[index])
        assert found.keys() == expected.keys()
        for (request, rank), row in found.items():
            position = expected[request, rank] - starts[request]
            end = int(step.shared.image_end[request])
            computes = int(holder[request]) if position < end else request
            assert row - starts[computes] == position
        assert one.seq_lens.tolist() == other.seq_lens.tolist()
        counts = [
            sum(int(a) == request for a in one.requests) for request in range(len(starts) - 1)
        ]
        assert np.diff(one.query_start_loc).tolist() == counts
        places = np.random.default_rng(0).permutation(64 * len(counts)).reshape(-1, 64)
        table = torch.from_numpy(places)
        slots = one.slot_mapping(table, 4)
        assert sorted(slots.tolist()) == sorted(other.slot_mapping(table, 4).tolist())


@settings(max_examples=200, deadline=None)
@given(steps())
def test_score_rows_see_the_same_tokens(step: Step) -> None:
    starts = step.starts
    for index, (one, other) in enumerate(both(step)):
        kept, holder = step.kept[index], step.shared.owners(index)
        here, there = one.fill(kept).numpy(), other.fill(kept).numpy()
        mine, alone = one.score_rows(step.shared), other.score_rows(step.apart)
        assert here[mine.query].tolist() == there[alone.query].tolist()
        assert mine.key_mask.tolist() == alone.key_mask.tolist()
        assert mine.image_columns.tolist() == alone.image_columns.tolist()
        for place, request in enumerate(one.image_requests):
            seen = mine.key_mask[place]
            rows, plain = here[mine.keys[place][seen]], there[alone.keys[place][seen]]
            inside = plain - starts[request] < step.shared.image_end[request]
            moved = starts[int(holder[request])] - starts[request]
            assert rows.tolist() == (plain + np.where(inside, moved, 0)).tolist()


@settings(max_examples=100, deadline=None)
@given(steps())
def test_images_have_the_rows_of_the_request_that_computes_them(step: Step) -> None:
    plan = TokenPlan.build(step.shared, step.schedule)
    for index in range(len(plan.stages)):
        holders = plan.image_requests[plan.holders(index)]
        assert holders.tolist() == step.shared.owners(index)[plan.image_requests].tolist()


@settings(max_examples=200, deadline=None)
@given(steps())
def test_states_are_handed_over_once_before_the_first_stage_of_ones_own(step: Step) -> None:
    plan = TokenPlan.build(step.shared, step.schedule)
    last = step.schedule.image_stages
    sharing = np.flatnonzero(step.shared.owners(0) != np.arange(step.shared.num_requests))
    for index in range(len(plan.stages)):
        own, other = plan.parting(index)
        if index != last or last == 0:
            assert len(own) == len(other) == 0
            continue
        expected = [
            (step.starts[one] + position, step.starts[int(step.shared.prefix_of[one])] + position)
            for one in sharing
            for position in range(int(step.shared.image_end[one]))
        ]
        assert list(zip(own.tolist(), other.tolist(), strict=True)) == expected


@pytest.mark.parametrize(
    ("name", "stages"),
    [("csp", 2), ("fastv", 1), ("prumerge+", 1), ("resprune", 0), ("random", 0), ("feather", 1)],
)
def test_stages_that_the_image_alone_decides(name: str, stages: int) -> None:
    assert policy(name, 8).image_stages == stages


@pytest.mark.parametrize(
    "wrong",
    [
        {"prefix_of": [0, 2, 2]},
        {"prefix_of": [1, 1, 2]},
        {"prefix_of": [0, 0, 1]},
        {"prefix_of": [0, 0, 9]},
        {"image_start": [4, 5, 4]},
        {"num_computed_tokens": [30, 0, 0]},
        {"num_scheduled_tokens": [24, 20, 26], "prompt_len": [24, 20, 26]},
    ],
    ids=[
        "later",
        "later and first",
        "a chain",
        "outside",
        "other place",
        "not in this step",
        "no row of its own",
    ],
)
def test_a_prefix_that_is_not_there_is_refused(wrong: dict[str, list[int]]) -> None:
    fields = {
        "num_computed_tokens": [0, 0, 0],
        "num_scheduled_tokens": [24, 25, 26],
        "prompt_len": [24, 25, 26],
        "image_start": [4, 4, 4],
        "image_len": [N, N, N],
        "prefix_of": [0, 0, 0],
        "shared_stages": [1, 1, 1],
        **wrong,
    }
    batch = Batch(**{name: np.array(value) for name, value in fields.items()})
    with pytest.raises(PlanError, match="does not compute it in this step"):
        TokenPlan.build(batch, schedule([4], question=False))
