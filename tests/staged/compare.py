"""What the engine noted, held against the reference."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tests.staged.engine import Noted
from tests.staged.plans import Plan, Prompt, Trace
from tests.staged.reference import Model

TOLERANCE = 1e-4


def replay(model: Model, prompt: Prompt, plan: Plan, tokens: list[int]) -> Trace:
    """The reference over the prompt and all tokens but the last, which is never fed."""
    kept = model.run(prompt, plan).kept
    return model.run(prompt, plan, tokens[:-1], kept)


def differences(
    noted: Noted, trace: Trace, begins: Sequence[int] | None = None
) -> dict[str, float]:
    """Largest difference of any row noted in any step, per stage and in the final states.

    Fails unless exactly the reference's rows were seen, in their order; those from position
    `begins[stage]` on, if that is given.
    """
    begins = begins or [0] * len(trace.entering)
    found = {}
    for stage, (rows, states) in enumerate(trace.entering):
        found[f"stage {stage}"] = _furthest(noted.entering[stage], rows, states, begins[stage])
    found["final"] = _furthest(noted.final, trace.entering[-1][0], trace.final, begins[-1])
    return found


def _furthest(
    steps: list[tuple[list[int], Tensor]], rows: list[int], states: Tensor, begin: int
) -> float:
    at = {position: row for row, position in enumerate(rows)}
    rows = [row for row in rows if row >= begin]
    furthest, seen = 0.0, set()
    for positions, noted in steps:
        window = [row for row in rows if positions[0] <= row <= positions[-1]]
        assert positions == window, "other rows, or in another order"
        seen.update(positions)
        distance = (noted - states[[at[one] for one in positions]]).abs().max()
        furthest = max(furthest, float(distance))
    assert seen == set(rows)
    return furthest


def same_bits(one: Noted, other: Noted) -> bool:
    """Whether two engines computed equal rows, bit by bit, in equal steps."""
    pairs = [
        *zip(one.final, other.final, strict=True),
        *(
            pair
            for stage in one.entering
            for pair in zip(one.entering[stage], other.entering[stage], strict=True)
        ),
    ]
    return all(
        positions == others and torch.equal(rows, other_rows)
        for (positions, rows), (others, other_rows) in pairs
    )
