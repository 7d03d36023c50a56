"""The requests of one engine step, as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int64]


class PlanError(ValueError):
    """A batch that a schedule cannot run, with the reason and the fix."""


@dataclass(frozen=True)
class Batch:
    """R requests in batch order; all arrays [R] int64.

    num_computed_tokens: tokens whose K/V are in the cache. num_scheduled_tokens: rows of this step
    (0 allowed). prompt_len: prompt tokens, image included; a request resumed after preemption
    schedules prompt and generated tokens together. image_start: position of the image's first
    token; image_len: 0 for a text-only request. prefix_of: the request of this step whose
    prompt is the same up to the image's end and which computes it for both, itself if there is
    none; shared_stages: in how many leading stages it does.

    Raises:
        PlanError: lengths differ, or a value is negative.
    """

    num_computed_tokens: IntArray
    num_scheduled_tokens: IntArray
    prompt_len: IntArray
    image_start: IntArray
    image_len: IntArray
    prefix_of: IntArray | None = None
    shared_stages: IntArray | None = None

    def __post_init__(self) -> None:
        """Make int64 arrays of all fields and check them."""
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if value is None:
                continue
            array = np.asarray(value, dtype=np.int64)
            if array.shape != (len(self.num_computed_tokens),):
                raise PlanError(f"{name} has shape {array.shape}, one value per request is needed")
            if array.size and array.min() < 0:
                raise PlanError(f"{name} is negative for request {int(array.argmin())}")
            object.__setattr__(self, name, array)

    @property
    def num_requests(self) -> int:
        """R."""
        return len(self.num_computed_tokens)

    @property
    def image_end(self) -> IntArray:
        """Position after the image's last token, [R]."""
        return self.image_start + self.image_len

    @property
    def image_past(self) -> NDArray[np.bool_]:
        """Requests whose image was computed in an earlier step, [R]."""
        return (self.image_len > 0) & (self.num_computed_tokens >= self.image_end)

    @property
    def image_now(self) -> NDArray[np.bool_]:
        """Requests whose whole image is among this step's rows, [R]."""
        last = self.num_computed_tokens + self.num_scheduled_tokens
        inside = (self.num_computed_tokens <= self.image_start) & (last >= self.image_end)
        return (self.image_len > 0) & inside

    @property
    def image_begins(self) -> NDArray[np.bool_]:
        """Requests whose prompt is in this step from its start to behind the image, [R]."""
        behind = self.num_scheduled_tokens > self.image_end
        return self.image_now & (self.num_computed_tokens == 0) & behind

    @property
    def scored_at(self) -> IntArray:
        """Position of the row that scores image tokens, [R]: the prompt's last."""
        return self.prompt_len - 1

    def owners(self, stage: int) -> IntArray:
        """Request that computes the prompt up to the image's end in a stage, [R]; often itself."""
        itself = np.arange(self.num_requests)
        if self.prefix_of is None or self.shared_stages is None:
            return itself
        return np.where(self.shared_stages > stage, self.prefix_of, itself)

    def check(self, num_image_tokens: int, question_dependent: bool) -> None:
        """Raise PlanError for what a schedule over ``num_image_tokens`` cannot run.

        question_dependent: the schedule reads scores, so the image and the score row must be in one
        step, with no part of the prompt taken from the prefix cache.
        """
        last = self.num_computed_tokens + self.num_scheduled_tokens
        has_image = self.image_len > 0
        _refuse(
            has_image & (self.image_len != num_image_tokens),
            f"its image has not the {num_image_tokens} tokens of the schedule; "
            f"make a schedule for the model's image size",
        )
        _refuse(
            has_image & (self.image_end > self.prompt_len),
            "its image reaches beyond its prompt; check image_start and prompt_len",
        )
        begun = (last > self.image_start) & (self.num_computed_tokens < self.image_end)
        _refuse(
            has_image & (self.num_scheduled_tokens > 0) & begun & ~self.image_now,
            "its image is split between steps; switch chunked prefill off and set "
            "max_num_batched_tokens to at least max_model_len",
        )
        self._check_prefixes()
        if not question_dependent:
            return
        prefill = self.num_computed_tokens < self.prompt_len
        prefill &= has_image & (self.num_scheduled_tokens > 0)
        _refuse(
            prefill & ((self.num_computed_tokens > 0) | (last < self.prompt_len)),
            "its prompt is not prefilled whole, which a question-dependent schedule needs; "
            "switch chunked prefill and prefix caching off",
        )
        misplaced = (self.scored_at < self.image_end) | (self.scored_at >= self.prompt_len)
        _refuse(
            prefill & misplaced,
            "its score row is not a prompt row after the image; put the question after the image",
        )

    def _check_prefixes(self) -> None:
        if self.prefix_of is None:
            return
        itself = np.arange(self.num_requests)
        owner = np.minimum(self.prefix_of, itself)
        begins = self.image_begins
        alike = begins & begins[owner] & (self.image_start == self.image_start[owner])
        _refuse(
            (self.prefix_of != itself)
            & (~alike | (self.prefix_of > owner) | (self.prefix_of[owner] != owner)),
            "the request whose prompt up to the image it shares does not compute it in this step",
        )


def _refuse(wrong: NDArray[np.bool_], reason: str) -> None:
    if wrong.any():
        raise PlanError(f"request {int(wrong.argmax())} of the batch: {reason}")
