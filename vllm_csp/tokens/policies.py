"""Schedules by policy name, and rivals at equal budget."""

from __future__ import annotations

from typing import Any

from vllm_csp.tokens.policy_base import Policy
from vllm_csp.tokens.policy_knobs import (
    Csp,
    Custom,
    Dense,
    FastV,
    Feather,
    PruMerge,
    PruMergePlus,
    Random,
    ResPrune,
)
from vllm_csp.tokens.schedule import Schedule, square_grid

POLICIES: dict[str, type[Policy]] = {
    "dense": Dense,
    "csp": Csp,
    "fastv": FastV,
    "feather": Feather,
    "prumerge": PruMerge,
    "prumerge+": PruMergePlus,
    "resprune": ResPrune,
    "random": Random,
    "custom": Custom,
}


def knobs(name: str, **values: Any) -> Policy:
    """The policy of that name with validated knobs.

    Raises:
        ValueError: the name or a knob is unknown, or a value does not fit (ValidationError).
    """
    if name not in POLICIES:
        raise ValueError(f"unknown policy '{name:.80}'; choose one of {', '.join(POLICIES)}")
    return POLICIES[name](**values)


def policy(
    name: str,
    num_layers: int,
    num_image_tokens: int = 256,
    *,
    grid: tuple[int, int] | None = None,
    **values: Any,
) -> Schedule:
    """The schedule of a policy for a decoder of L layers and images of N tokens.

    grid: (rows, columns), square by default. values: the policy's knobs (``policy_knobs``).

    Raises:
        ValueError: unknown names, or knobs that make no schedule for this model.
    """
    grid = grid or square_grid(num_image_tokens)
    if grid[0] * grid[1] != num_image_tokens:
        raise ValueError(f"grid {grid[0]} x {grid[1]} has not {num_image_tokens} tokens")
    return knobs(name, **values).schedule(num_layers, grid)


def at_kept(
    name: str, kept: int, num_layers: int, num_image_tokens: int = 256, **values: Any
) -> Schedule:
    """The policy with ``kept`` image tokens after its (first) pruning, as "retain 64" is meant.

    Raises:
        ValueError: the policy prunes nothing, or knobs do not fit.
    """
    grid = values.pop("grid", None) or square_grid(num_image_tokens)
    return knobs(name, **values).with_kept(kept).schedule(num_layers, grid)


def at_mean(
    name: str, mean: float, num_layers: int, num_image_tokens: int = 256, **values: Any
) -> Schedule:
    """The policy whose mean visual tokens per layer come closest to ``mean``.

    Only counts change, layers stay. Of two equally close budgets the smaller is taken.

    Raises:
        ValueError: the mean is out of the policy's reach at these layers, or knobs do not fit.
    """
    grid = values.pop("grid", None) or square_grid(num_image_tokens)
    chosen = knobs(name, **values)

    def made(kept: int) -> Schedule:
        return chosen.scaled_to(kept, grid).schedule(num_layers, grid)

    low, high = chosen.least_kept(grid), num_image_tokens
    least, most = (made(end).mean_visual_tokens_per_layer for end in (low, high))
    if not least <= mean <= most:
        raise ValueError(
            f"policy '{name}' reaches means of {least:.1f} to {most:.1f} visual tokens per layer "
            f"with these layers, not {mean:.1f}: change its layers"
        )
    # The mean grows with the budget: find the last budget below it, then take the closer side.
    while high - low > 1:
        middle = (low + high) // 2
        if made(middle).mean_visual_tokens_per_layer <= mean:
            low = middle
        else:
            high = middle
    return min(
        (made(low), made(high)), key=lambda made: abs(made.mean_visual_tokens_per_layer - mean)
    )
