"""Choices by position alone: every token, the paper's 1-D stride, a 2-D grid."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from vllm_csp.tokens.selectors.inputs import SelectionError, SelectionInputs
from vllm_csp.tokens.selectors.spec import SelectorSpec


def uniform_stride(num_tokens: int, budget: int, device: torch.device) -> Tensor:
    """S[i] = i * floor(N / budget): [budget] int64.

    Source: LVLM_CSP (arXiv 2504.10854), "uniform" clustering. At N = 256 on 16 columns this picks
    whole columns (budget 16: one column), and budgets above N / 2 the first ``budget`` tokens.
    """
    return torch.arange(budget, device=device) * (num_tokens // budget)


def uniform_grid(grid: tuple[int, int], budget: int, device: torch.device) -> Tensor:
    """Exactly ``budget`` tokens spread evenly over a grid of (rows, columns): [budget] int64.

    Lines and the tokens in each line are centred in equal intervals; the number of lines follows
    the aspect ratio, so 64 of 16 x 16 is every second token in both directions.
    """
    height, width = grid
    lines = round(math.sqrt(budget * height / width))
    lines = min(max(lines, -(-budget // width)), height)
    token = torch.arange(budget, device=device)
    line = ((token + 1) * lines - 1) // budget
    first = line * budget // lines
    per_line = (line + 1) * budget // lines - first
    row = (2 * line + 1) * height // (2 * lines)
    column = (2 * (token - first) + 1) * width // (2 * per_line)
    return row * width + column


def stride_grid(grid: tuple[int, int], stride: int, device: torch.device) -> Tensor:
    """Tokens on every ``stride``-th row and column from the corner: [G] int64, ascending.

    Source: FEATHER (arXiv 2412.13180), stride 3.
    """
    rows = torch.arange(0, grid[0], stride, device=device)
    columns = torch.arange(0, grid[1], stride, device=device)
    return (rows[:, None] * grid[1] + columns).reshape(-1)


def stride_grid_size(grid: tuple[int, int], stride: int) -> int:
    """Number of tokens in ``stride_grid``."""
    return math.ceil(grid[0] / stride) * math.ceil(grid[1] / stride)


class All(SelectorSpec):
    """Every image token."""

    name: Literal["all"] = "all"

    def check(self, budget: int, grid: tuple[int, int]) -> None:
        """Raise SelectionError unless the budget is all tokens of ``grid``."""
        if budget != grid[0] * grid[1]:
            raise SelectionError(
                f"selector 'all' keeps {grid[0] * grid[1]} tokens, the budget is {budget}; "
                f"set the budget to {grid[0] * grid[1]} or choose another selector"
            )

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """Never reached: ``select`` answers a full budget itself."""
        raise SelectionError("selector 'all' cannot drop tokens")


class Uniform(SelectorSpec):
    """The paper's 1-D stride (``uniform_stride``)."""

    name: Literal["uniform"] = "uniform"

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64, the same for every request."""
        kept = uniform_stride(inputs.num_image_tokens, budget, inputs.device)
        return kept.repeat(inputs.batch_size, 1)


class Grid(SelectorSpec):
    """An even 2-D grid (``uniform_grid``)."""

    name: Literal["grid"] = "grid"

    def choose(self, inputs: SelectionInputs, budget: int) -> Tensor:
        """[B, budget] int64, the same for every request."""
        kept = uniform_grid(inputs.grid, budget, inputs.device)
        return kept.repeat(inputs.batch_size, 1)
