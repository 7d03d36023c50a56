"""What is known of each row of the running batch, and the token plan of the current step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray

from vllm_csp.schedules import follows
from vllm_csp.tokens import Batch, Schedule, TokenPlan

# One engine per process is the rule; tests may hold several.
_trackers: WeakValueDictionary[str, BatchTracker] = WeakValueDictionary()

# Names in `SamplingParams.extra_args`.
SEED_KEY = "csp_seed"
SCHEDULE_KEY = "csp_schedule"
NO_IMAGE_KEY = "csp_no_image"
SAME_IMAGE_KEY = "csp_same_image"


@dataclass(frozen=True)
class TrackedRequest:
    """What the plan must know of a request.

    prompt_len; where its image lies in it (length 0: none); the seed of random choices; its own
    schedule, of the engine's layout, if it asked for one. prefix: the same for all requests whose
    prompts are the same up to the image's end, None if that is not known.
    """

    prompt_len: int
    image_start: int
    image_len: int
    seed: int
    schedule: Schedule | None = None
    prefix: tuple[str, bytes] | None = None


TEXT_ONLY = TrackedRequest(prompt_len=0, image_start=0, image_len=0, seed=0)


class BatchTracker:
    """Follows the batch of one engine and plans each step once, for all KV cache groups.

    `rows[i]` is the request of batch row i. The runner's hooks keep it current; metadata builders
    ask for `plan` and leave each layer's compact slots in `slot_mappings` for the forward pass.
    """

    def __init__(
        self,
        instance_id: str,
        schedule: Schedule,
        image_token_id: int,
        share_images: bool = True,
    ) -> None:
        self.schedule = schedule
        self.share_images = share_images
        self.rows: dict[int, TrackedRequest] = {}
        self.slot_mappings: dict[str, torch.Tensor] = {}
        self._image_token_id = image_token_id
        self._plan: TokenPlan | None = None
        _trackers[instance_id] = self

    def describe(
        self, prompt_ids: Sequence[int] | None, extra_args: Mapping[str, Any] | None
    ) -> TrackedRequest:
        """Read it off the prompt and the request's `extra_args`.

        Image tokens without an image (a client may send any ids; the scheduler knows) are text
        like any other. A schedule that this engine cannot follow is left out.
        """
        prompt = np.asarray([] if prompt_ids is None else prompt_ids, dtype=np.int64)
        args = extra_args or {}
        start = -1 if args.get(NO_IMAGE_KEY) else self._image_start(prompt)
        same_image = args.get(SAME_IMAGE_KEY) if self.share_images and start >= 0 else None
        return TrackedRequest(
            prompt_len=len(prompt),
            image_start=max(start, 0),
            image_len=self.schedule.num_image_tokens if start >= 0 else 0,
            seed=int(args.get(SEED_KEY, crc32(prompt.tobytes()))),
            schedule=self._followed(args[SCHEDULE_KEY]) if SCHEDULE_KEY in args else None,
            prefix=None if same_image is None else (same_image, prompt[:start].tobytes()),
        )

    def _image_start(self, prompt: NDArray[np.int64]) -> int:
        """Where the image's run of tokens starts; -1 if there is none."""
        length = self.schedule.num_image_tokens
        (tokens,) = np.nonzero(prompt == self._image_token_id)
        if len(tokens) < length:
            return -1
        last, first = tokens[length - 1 :], tokens[: len(tokens) - length + 1]
        (runs,) = np.nonzero(last - first == length - 1)
        return int(tokens[runs[0]]) if len(runs) else -1

    def _followed(self, text: str) -> Schedule | None:
        own = parse_schedule(text)
        return own if follows(own, self.schedule) else None

    def begin_step(self) -> None:
        """The batch may have changed: plan anew."""
        self._plan = None
        self.slot_mappings = {}

    def plan(self, query_start_loc: torch.Tensor, seq_lens: torch.Tensor) -> TokenPlan:
        """The step's plan; query_start_loc [R + 1] and seq_lens [R] on the CPU."""
        if self._plan is None:
            scheduled = np.diff(query_start_loc.numpy()).astype(np.int64)
            requests = [self.rows.get(row, TEXT_ONLY) for row in range(len(scheduled))]
            batch = Batch(
                num_computed_tokens=seq_lens.numpy().astype(np.int64) - scheduled,
                num_scheduled_tokens=scheduled,
                prompt_len=np.array([one.prompt_len for one in requests]),
                image_start=np.array([one.image_start for one in requests]),
                image_len=np.array([one.image_len for one in requests]),
            )
            self._plan = TokenPlan.build(self._with_prefixes(batch, requests), self.schedule)
        return self._plan

    def _with_prefixes(self, batch: Batch, requests: Sequence[TrackedRequest]) -> Batch:
        """The batch, with whose prefix is whose among requests that begin in this step."""
        begins = np.flatnonzero(batch.image_begins)
        if len(begins) < 2:
            return batch
        first: dict[tuple[tuple[str, bytes], Schedule | None], int] = {}
        prefix_of = np.arange(batch.num_requests)
        shared_stages = np.zeros_like(prefix_of)
        for row in map(int, begins):
            one = requests[row]
            if one.prefix is not None:
                prefix_of[row] = first.setdefault((one.prefix, one.schedule), row)
                shared_stages[row] = (one.schedule or self.schedule).image_stages
        return replace(batch, prefix_of=prefix_of, shared_stages=shared_stages)

    @property
    def current_plan(self) -> TokenPlan:
        """The plan that this step's metadata was built from."""
        assert self._plan is not None, "no attention metadata was built for this step"
        return self._plan


@lru_cache(maxsize=64)
def parse_schedule(text: str) -> Schedule:
    """A schedule from its JSON; `ValueError` if it is none."""
    return Schedule.model_validate_json(text)


def tracker_of(instance_id: str) -> BatchTracker | None:
    """The tracker of the engine with this `VllmConfig.instance_id`; None when it is dense."""
    return _trackers.get(instance_id)
