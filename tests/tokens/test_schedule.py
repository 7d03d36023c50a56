"""A schedule tiles the decoder, or says why not."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vllm_csp.tokens import Schedule, Stage
from vllm_csp.tokens.selectors import ScoreSpec, selector


def stage(first: int, last: int, rule: object, budget: int) -> dict[str, object]:
    return {"first_layer": first, "last_layer": last, "selector": rule, "budget": budget}


CSP = [stage(0, 2, "grid", 4), stage(2, 4, "all", 16), stage(4, 8, "attention", 2)]


def made(stages: list, layers: int = 8, tokens: int = 16, **more: object) -> Schedule:
    return Schedule(num_layers=layers, num_image_tokens=tokens, stages=stages, **more)


def test_counts_of_cluster_scatter_prune() -> None:
    schedule = made(CSP)
    assert schedule.grid == (4, 4)
    assert schedule.kept_per_stage == (4, 16, 2)
    assert schedule.image_token_layers == 2 * 4 + 2 * 16 + 4 * 2
    assert schedule.mean_visual_tokens_per_layer == 6.0
    assert [schedule.stage_of(layer) for layer in range(8)] == [0, 0, 1, 1, 2, 2, 2, 2]
    assert [schedule.reexpands(i) for i in range(3)] == [False, True, False]
    with pytest.raises(IndexError):
        schedule.stage_of(8)


def test_only_stages_chosen_by_attention_need_a_score() -> None:
    schedule = made(CSP)
    assert [schedule.score(i) for i in range(3)] == [None, None, ScoreSpec()]


def test_dependence_on_the_question_per_stage() -> None:
    schedule = made(CSP)
    assert [schedule.stage_depends_on_question(i) for i in range(3)] == [False, False, True]
    assert schedule.depends_on_question
    assert not made([stage(0, 8, "prumerge+", 4)]).depends_on_question


def test_a_stage_that_keeps_all_needs_no_score() -> None:
    schedule = made([stage(0, 4, "all", 16), stage(4, 8, "attention", 16)])
    assert schedule.score(1) is None
    assert not schedule.depends_on_question


def test_dense_is_one_stage_of_all_tokens() -> None:
    assert made([stage(0, 8, "all", 16)]).is_dense
    assert made([stage(0, 8, "grid", 16)]).is_dense
    assert not made([stage(0, 4, "all", 16), stage(4, 8, "attention", 16)]).is_dense
    assert not made([stage(0, 8, "grid", 15)]).is_dense


def test_a_return_of_tokens_is_seen_after_any_smaller_stage() -> None:
    other = made([stage(0, 4, "grid", 4), stage(4, 8, "uniform", 4)])
    assert other.reexpands(1)
    narrowing = made([stage(0, 4, "grid", 4), stage(4, 8, "attention", 2)])
    assert not narrowing.reexpands(1)


def test_json_round_trip() -> None:
    rule = {"name": "resprune", "alpha": 1.5, "normalise": True}
    schedule = made(
        [stage(0, 2, rule, 4), *CSP[1:]], grid=(2, 8), scatter="offset", representative="index"
    )
    again = Schedule.model_validate_json(schedule.model_dump_json())
    assert again == schedule
    assert again.stages[0].selector == selector(**rule)
    assert hash(again) == hash(schedule)


def test_equal_layouts_allow_a_choice_per_request() -> None:
    other = [stage(0, 2, "random", 4), *CSP[1:]]
    assert made(CSP).layout == made(other).layout
    assert made(CSP).layout != made([stage(0, 2, "grid", 5), *CSP[1:]]).layout
    assert made(CSP).layout != made(CSP, grid=(2, 8)).layout
    few = [stage(0, 8, "grid", 4)]
    assert made(few).layout != made(few, tokens=64).layout


def test_text_form_names_layers_selectors_and_budgets() -> None:
    assert str(made(CSP)) == (
        "layers 0-1 grid 4, layers 2-3 all 16, layers 4-7 attention 2 of 16 image tokens"
    )


@pytest.mark.parametrize(
    ("stages", "says"),
    [
        ([], "at least 1 item"),
        ([stage(1, 8, "all", 16)], "layer 0 is next"),
        ([stage(0, 3, "grid", 4), stage(4, 8, "all", 16)], "layer 3 is next"),
        ([stage(0, 5, "grid", 4), stage(4, 8, "all", 16)], "without gap or overlap"),
        ([stage(0, 7, "all", 16)], "set the last stage's last_layer to 8"),
        ([stage(0, 9, "all", 16)], "the decoder has 8"),
        ([*CSP[:2], stage(4, 4, "grid", 2), stage(4, 8, "grid", 3)], "covers no layer"),
        ([stage(0, 8, "grid", 17)], "keeps 17 of 16"),
        ([stage(0, 8, "grid", 0)], "greater than or equal to 1"),
        ([stage(0, 8, "all", 5)], "set the budget to 16"),
        ([stage(0, 8, "attention", 4)], "put a stage in front of it"),
        ([stage(0, 4, "grid", 4), stage(4, 8, "attention", 5)], "among the 4 tokens of stage 0"),
        ([stage(0, 4, "grid", 4), stage(4, 8, "grid", 4)], "join them"),
        ([stage(0, 8, "nearest", 4)], "choose one of all, uniform"),
        ([stage(0, 8, {"alpha": 1}, 4)], "a selector needs a name"),
        ([stage(0, 8, 7, 4)], "SelectorSpec"),
        (
            [*CSP[:2], stage(4, 8, {"name": "attention", "score": {"layers": 3}}, 2)],
            "lower score.layers",
        ),
        (
            [CSP[0], stage(2, 8, {"name": "prumerge", "merge_dropped": True}, 3)],
            "move it to stage 0",
        ),
        ([stage(0, 4, "all", 16), stage(4, 8, "feather", 3)], "raise the budget to 4"),
    ],
)
def test_impossible_stages_are_refused_with_the_fix(stages: list, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        made(stages)


def test_grid_must_fit_the_tokens() -> None:
    with pytest.raises(ValidationError, match="not a square: give grid"):
        made([stage(0, 8, "all", 15)], tokens=15)
    with pytest.raises(ValidationError, match="has 12 tokens"):
        made([stage(0, 8, "all", 16)], grid=(3, 4))


def test_attention_stages_may_repeat_because_their_layers_differ() -> None:
    first = Stage(first_layer=0, last_layer=2, selector="all", budget=16)
    again = [first, stage(2, 4, "attention", 4), stage(4, 8, "attention", 4)]
    assert made(again).kept_per_stage == (16, 4, 4)
