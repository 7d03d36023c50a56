"""What holds for every selector."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vllm_csp.tokens.selectors import SELECTORS, SelectionError, SelectionInputs, selector
from vllm_csp.tokens.selectors.grid import stride_grid_size

GRIDS = [(4, 4), (5, 3), (1, 7), (6, 1), (8, 8)]
NAMES = [name for name in SELECTORS if name != "all"]


def inputs(
    grid: tuple[int, int], batch: int = 3, seed: int = 0, ties: bool = False, **also: object
):
    """Every input a selector can ask for, random or of few distinct values."""
    total = grid[0] * grid[1]
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        if ties:
            return torch.randint(0, 2, shape, generator=generator).float()
        return torch.randn(*shape, generator=generator)

    values = {
        "image_features": draw(batch, total, 6),
        "cls_attention": draw(batch, total),
        "key_features": draw(batch, total, 5),
        "text_embeddings": draw(batch, 3, 6),
        "text_mask": torch.rand(batch, 3, generator=generator) < 0.7,
        "readout_scores": draw(batch, total),
        "seeds": torch.randint(0, 2**62, (batch,), generator=generator),
        "instance_masks": torch.rand(batch, 3, total, generator=generator) < 0.3,
        **also,
    }
    return SelectionInputs(batch, grid, **values)


def budgets(name: str, grid: tuple[int, int]) -> list[int]:
    total = grid[0] * grid[1]
    least = stride_grid_size(grid, 3) if name == "feather" else 1
    return sorted({least, (least + total) // 2, max(least, total - 1), total})


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", NAMES)
def test_output_has_the_budget_and_is_unique_sorted_and_in_range(
    name: str, grid: tuple[int, int], ties: bool
) -> None:
    given = inputs(grid, ties=ties)
    for budget in budgets(name, grid):
        kept = selector(name).select(given, budget)
        assert kept.shape == (3, budget)
        assert kept.dtype == torch.int64
        for row in kept.tolist():
            assert row == sorted(set(row))
            assert row[0] >= 0 and row[-1] < grid[0] * grid[1]


@pytest.mark.parametrize("name", NAMES)
def test_a_request_does_not_depend_on_its_batch(name: str) -> None:
    grid = (6, 6)
    given = inputs(grid, batch=4)
    budget = budgets(name, grid)[1]
    together = selector(name).select(given, budget)
    for row in range(4):
        fields = {
            f: getattr(given, f)[row : row + 1]
            for f in given.__dataclass_fields__
            if isinstance(getattr(given, f), Tensor)
        }
        alone = selector(name).select(SelectionInputs(1, grid, **fields), budget)
        assert alone[0].tolist() == together[row].tolist()


@pytest.mark.parametrize("name", SELECTORS)
def test_a_full_budget_is_every_token_whatever_is_given(name: str) -> None:
    kept = selector(name).select(SelectionInputs(2, (3, 5)), 15)
    assert kept.tolist() == [list(range(15))] * 2


@pytest.mark.parametrize("name", [n for n in NAMES if SELECTORS[n].needs])
def test_a_missing_input_is_named(name: str) -> None:
    needs = SELECTORS[name].needs
    for need in needs:
        given = inputs((4, 4), **{need: None})
        with pytest.raises(SelectionError, match=f"'{name}'|{name.replace('+', '.')}"):
            selector(name).select(given, 5)


@pytest.mark.parametrize("name", NAMES)
def test_only_declared_needs_are_used(name: str) -> None:
    rule = selector(name)
    full = inputs((4, 4))
    only = SelectionInputs(3, (4, 4), **{need: getattr(full, need) for need in rule.needs})
    assert rule.select(only, 5).tolist() == rule.select(full, 5).tolist()


@pytest.mark.parametrize("budget", [0, 17])
def test_an_impossible_budget_is_refused(budget: int) -> None:
    with pytest.raises(SelectionError, match=r"outside 1\.\.16"):
        selector("grid").select(SelectionInputs(1, (4, 4)), budget)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(SelectionError, match="16 image tokens"):
        SelectionInputs(1, (4, 4), cls_attention=torch.zeros(1, 15))
    with pytest.raises(SelectionError, match="dimensions"):
        SelectionInputs(2, (4, 4), cls_attention=torch.zeros(1, 16))
    with pytest.raises(SelectionError, match="on meta"):
        SelectionInputs(1, (4, 4), cls_attention=torch.zeros(1, 16, device="meta"))


@pytest.mark.parametrize("name", SELECTORS)
def test_json_round_trip(name: str) -> None:
    rule = selector(name)
    assert selector(**rule.model_dump(mode="json")) == rule


def test_unknown_names_and_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match="choose one of all, uniform"):
        selector("nearest")
    with pytest.raises(ValueError, match="alpha"):
        selector("resprune", alpha=-1)
    with pytest.raises(ValueError, match="Extra inputs"):
        selector("grid", stride=2)


def test_dependence_on_the_question() -> None:
    free = {"all", "uniform", "grid", "cls", "seg_first", "prumerge", "prumerge+", "divprune"}
    assert {n for n in SELECTORS if not selector(n).depends_on_question} == free
    assert not selector("resprune", alpha=0).depends_on_question
    assert not selector("random", seed_per="image").depends_on_question


@pytest.mark.parametrize("name", NAMES)
def test_no_tensor_is_read_on_the_host(name: str) -> None:
    """Meta tensors have no values: reading one, or a shape that depends on one, fails."""
    full = inputs((6, 6))
    fields = {f: getattr(full, f) for f in full.__dataclass_fields__}
    moved = {f: v.to("meta") for f, v in fields.items() if isinstance(v, Tensor)}
    given = SelectionInputs(3, (6, 6), torch.device("meta"), **moved)
    kept = selector(name).select(given, 12)
    assert kept.shape == (3, 12)
    assert kept.is_meta
