"""Which rows of a batch each stage runs, and where their K/V go.

Planned in NumPy; what the device needs of it is sent without waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vllm_csp.device_copy import on_device
from vllm_csp.tokens.batch import Batch, IntArray
from vllm_csp.tokens.schedule import Schedule
from vllm_csp.tokens.score_rows import ScoreRows

LengthArray = NDArray[np.int32]

_NONE = np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Copies:
    """X keys and values that further requests need, of rows that another request computes.

    rows: [X] positions among the stage's rows. requests: [X] who needs them; ranks: [X] at which
    compact KV position.
    """

    rows: IntArray
    requests: IntArray
    ranks: IntArray


@dataclass(frozen=True)
class StagePlan:
    """The compact batch of one stage: R requests, T rows, P of the requests prefilling an image.

    rows: [T] rows of the full batch that take part, ascending; at ``image_slots`` they are those
        of the first ``budget`` image tokens until ``fill`` puts the selected ones there.
    requests: [T] request of each row. ranks: [T] place of each row's token among the tokens of its
        request that this stage keeps, i.e. its compact KV position.
    query_start_loc: [R + 1] int32; seq_lens: [R] int32, kept tokens up to this step's last.
    image_slots: [P, budget] positions in ``rows`` of the selected image tokens.
    image_base: [P] row of the full batch of each image's first token.
    image_requests: [P] their requests. is_identity: the stage runs the full batch as it is.

    Requests may leave their prompt up to the image's end to another one, which has the same: its
    rows are not among ``rows``, and image_slots and image_base are those of the other.
    prefix_slots: [P] position in ``rows`` of the prompt's first row. shared: [P] how many rows from
        there on are another's, 0 for a request that computes its own.
    copies: what such requests still need in their KV cache.
    """

    budget: int
    rows: IntArray
    requests: IntArray
    ranks: IntArray
    query_start_loc: LengthArray
    seq_lens: LengthArray
    image_slots: IntArray
    image_base: IntArray
    image_requests: IntArray
    prefix_slots: IntArray
    shared: IntArray
    copies: Copies
    is_identity: bool
    _sent: dict[tuple[object, ...], Tensor] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def num_rows(self) -> int:
        """T."""
        return len(self.rows)

    @property
    def max_query_len(self) -> int:
        """Most rows of a request, 0 for an empty batch."""
        return int(np.diff(self.query_start_loc).max(initial=0))

    @property
    def max_seq_len(self) -> int:
        """Most kept tokens of a request, 0 for an empty batch."""
        return int(self.seq_lens.max(initial=0))

    def fill(self, selected: Tensor) -> Tensor:
        """``rows`` with the selected image tokens in place: [T] int64 on their device.

        selected: [P, budget] int64, ascending original indices 0..N-1, in ``image_requests`` order.
        """
        device = selected.device
        rows = on_device(self.rows, device)
        if self.is_identity:
            return rows
        chosen = selected + on_device(self.image_base, device)[:, None]
        return rows.scatter(0, on_device(self.image_slots, device).flatten(), chosen.flatten())

    def slot_mapping(self, block_table: Tensor, block_size: int) -> Tensor:
        """KV slot of each row and then of each copy, block * block_size + offset: [T + X] int64.

        block_table: [R, blocks] of a KV group of this stage; the slots are computed on its device.
        vLLM's dummy steps may be longer than any request: for blocks beyond the table stands the
        last one, as reading beyond it would end a GPU's process.
        """
        last = block_table.shape[1] - 1
        requests, block, offset = self._places(block_size, last, block_table.device)
        found: Tensor = block_table[requests, block]
        return found.long() * block_size + offset

    def lengths(self, device: torch.device) -> Tensor:
        """``seq_lens`` on a device, sent once."""
        return self._once(("lengths", device), lambda: on_device(self.seq_lens, device))

    def _places(self, block_size: int, last: int, device: torch.device) -> Tensor:
        """Request, block up to ``last`` and place in it of each row and each copy: [3, T + X].

        Sent to the device once for all KV groups.
        """

        def send() -> Tensor:
            requests = np.concatenate((self.requests, self.copies.requests))
            ranks = np.concatenate((self.ranks, self.copies.ranks))
            block, offset = np.divmod(ranks, block_size)
            return on_device(np.stack((requests, np.minimum(block, last), offset)), device)

        return self._once(("places", block_size, last, device), send)

    def _once(self, name: tuple[object, ...], make: Callable[[], Tensor]) -> Tensor:
        if name not in self._sent:
            self._sent[name] = make()
        return self._sent[name]

    def score_rows(self, batch: Batch) -> ScoreRows:
        """Rows to score this stage's image tokens by, for ``batch.scored_at``."""
        owner, prefix, shared = self.image_requests, self.prefix_slots, self.shared
        start = self.query_start_loc[owner].astype(np.int64)
        # The score row is after the image: at the same distance from the image's end as in full.
        place = self.image_slots[:, -1] - prefix + 1 + (batch.scored_at - batch.image_end)[owner]
        column = np.arange(place.max(initial=-1) + 1)
        mask = column <= place[:, None]
        own = (start - shared)[:, None] + column
        keys = np.where(column < shared[:, None], prefix[:, None] + column, own)
        columns = self.image_slots - prefix[:, None]
        return ScoreRows(start - shared + place, np.where(mask, keys, 0), mask, columns)


@dataclass(frozen=True)
class TokenPlan:
    """A batch under a schedule.

    query_start_loc: [R + 1] int32 of the full batch. image_requests: [P] requests whose image is in
    this step. image_rows: [P, N] rows of their image tokens in the full batch. stages: one plan per
    stage; equal budgets share one.
    """

    batch: Batch
    query_start_loc: LengthArray
    image_requests: IntArray
    image_rows: IntArray
    stages: tuple[StagePlan, ...]

    @classmethod
    def build(cls, batch: Batch, schedule: Schedule) -> TokenPlan:
        """Plan one step. Raises PlanError for a batch that the schedule cannot run."""
        total = schedule.num_image_tokens
        batch.check(total, schedule.depends_on_question)
        start = _offsets(batch.num_scheduled_tokens)
        owner = np.flatnonzero(batch.image_now)
        base = start[owner] + (batch.image_start - batch.num_computed_tokens)[owner]
        plans: dict[tuple[int, bytes], StagePlan] = {}
        stages = []
        for index, budget in enumerate(schedule.kept_per_stage):
            prefix_of = batch.owners(index)
            key = (budget, prefix_of.tobytes())
            if key not in plans:
                plans[key] = _stage(batch, start, owner, prefix_of, budget, total)
            stages.append(plans[key])
        return cls(
            batch=batch,
            query_start_loc=start.astype(np.int32),
            image_requests=owner,
            image_rows=base[:, None] + np.arange(total),
            stages=tuple(stages),
        )

    @property
    def only_decodes(self) -> bool:
        """Whether no request has more than one row, so that all stages run the same ones."""
        return len(self.image_requests) == 0 and self.batch.num_scheduled_tokens.max(initial=0) <= 1

    def holders(self, stage: int) -> IntArray:
        """For each image, [P], the one of them whose rows it has in a stage; often itself."""
        found: IntArray = np.searchsorted(
            self.image_requests, self.batch.owners(stage)[self.image_requests]
        )
        return found

    def parting(self, stage: int) -> tuple[IntArray, IntArray]:
        """Rows of the full batch, own and other, of requests that go on alone from this stage on.

        What they left to another request up to then is in its rows: [Y] each, aligned.
        """
        own, other = [_NONE], [_NONE]
        now = self.batch.owners(stage)
        before = self.batch.owners(stage - 1) if stage > 0 else now
        for request in np.flatnonzero(before != now):
            prefix = np.arange(self.batch.image_end[request])
            own.append(self.query_start_loc[request] + prefix)
            other.append(self.query_start_loc[before[request]] + prefix)
        return np.concatenate(own), np.concatenate(other)

    @property
    def num_rows(self) -> int:
        """Rows of the full batch."""
        return int(self.query_start_loc[-1])


def _offsets(lengths: IntArray) -> IntArray:
    return np.concatenate((np.zeros(1, dtype=np.int64), lengths.cumsum()))


def _stage(
    batch: Batch, start: IntArray, owner: IntArray, prefix_of: IntArray, budget: int, total: int
) -> StagePlan:
    dropped = total - budget
    # Rows up to the image's end that another request computes.
    shares = prefix_of != np.arange(batch.num_requests)
    shared = np.where(shares, batch.image_end - dropped, 0)
    computed = batch.num_computed_tokens - dropped * batch.image_past
    length = batch.num_scheduled_tokens - dropped * batch.image_now - shared
    compact = _offsets(length)
    requests = np.repeat(np.arange(batch.num_requests), length)
    place = np.arange(compact[-1]) - compact[requests] + shared[requests]
    # Image rows are the first `budget` of the image here; rows behind them skip the dropped ones.
    behind = batch.image_now & (dropped > 0)
    edge = batch.image_start - batch.num_computed_tokens + budget
    skip = np.where(behind[requests] & (place >= edge[requests]), dropped, 0)
    holder = prefix_of[owner]
    before = (batch.image_start - batch.num_computed_tokens)[holder]
    slots = compact[holder] + before
    return StagePlan(
        budget=budget,
        rows=start[requests] + place + skip,
        requests=requests,
        ranks=computed[requests] + place,
        query_start_loc=compact.astype(np.int32),
        seq_lens=(computed + shared + length).astype(np.int32),
        image_slots=slots[:, None] + np.arange(budget),
        image_base=start[holder] + before,
        image_requests=owner,
        prefix_slots=compact[holder],
        shared=shared[owner],
        copies=_copies(np.flatnonzero(shares), shared, compact[prefix_of]),
        is_identity=(dropped == 0 and not shares.any()) or len(owner) == 0,
    )


def _copies(sharing: IntArray, shared: IntArray, first: IntArray) -> Copies:
    """For the requests `sharing`, of `shared` rows each from position `first` on."""
    requests = np.repeat(sharing, shared[sharing])
    ranks = np.arange(len(requests)) - np.repeat(_offsets(shared[sharing])[:-1], shared[sharing])
    return Copies(first[requests] + ranks, requests, ranks)
