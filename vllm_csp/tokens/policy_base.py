"""What all policies share: a kept count that can be set, and stages laid end to end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict

from vllm_csp.tokens.schedule import Schedule, Stage
from vllm_csp.tokens.selectors import SelectorSpec

Span = tuple[int, SelectorSpec, int]
"""Layers, selector, budget."""


def share(total: int, part: int, whole: int) -> int:
    """``part / whole`` of ``total``, rounded half up, at least 1."""
    return max(1, (2 * total * part + whole) // (2 * whole))


class Policy(BaseModel, ABC):
    """Knobs of a named schedule. Counts left None follow N, layers left None follow L."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kept_knob: ClassVar[str | None] = "kept"

    @abstractmethod
    def schedule(self, num_layers: int, grid: tuple[int, int]) -> Schedule:
        """The schedule for L layers and an image of (rows, columns); ValueError if impossible."""

    def with_kept(self, kept: int) -> Self:
        """The policy with ``kept`` image tokens after its pruning; ValueError if it prunes none."""
        if self.kept_knob is None:
            raise ValueError("this policy has no single count of kept tokens to set")
        return self.model_copy(update={self.kept_knob: kept})

    def scaled_to(self, kept: int, grid: tuple[int, int]) -> Self:
        """The policy with all its counts scaled to ``kept``, for equal-budget comparisons."""
        return self.with_kept(kept)

    def least_kept(self, grid: tuple[int, int]) -> int:
        """The smallest possible ``kept``."""
        return 1


def tile(num_layers: int, grid: tuple[int, int], spans: Iterable[Span], **extra: Any) -> Schedule:
    """A schedule from consecutive spans; empty spans are left out."""
    stages, first = [], 0
    for length, rule, budget in spans:
        if length < 0:
            raise ValueError(
                f"the stages before the last one need {num_layers - length} layers, the decoder "
                f"has {num_layers}: lower them"
            )
        if length:
            stages.append(
                Stage(first_layer=first, last_layer=first + length, selector=rule, budget=budget)
            )
            first += length
    return Schedule(
        num_layers=num_layers,
        num_image_tokens=grid[0] * grid[1],
        grid=grid,
        stages=tuple(stages),
        **extra,
    )
