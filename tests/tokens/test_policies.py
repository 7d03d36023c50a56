"""Named policies make the schedules they stand for."""

from __future__ import annotations

import pytest

from vllm_csp.tokens import POLICIES, Schedule, at_kept, at_mean, policy
from vllm_csp.tokens.selectors import ScoreSpec, selector

NAMED = [name for name in POLICIES if name != "custom"]
RIVALS = [name for name in NAMED if name != "dense"]


def summary(schedule: Schedule) -> list[tuple[str, int, int]]:
    return [(s.selector.name, s.num_layers, s.budget) for s in schedule.stages]


@pytest.mark.parametrize("tokens", [256, 576, 64])
@pytest.mark.parametrize("layers", [3, 6, 8, 32, 40])
@pytest.mark.parametrize("name", NAMED)
def test_defaults_fit_every_model_and_survive_json(name: str, layers: int, tokens: int) -> None:
    schedule = policy(name, layers, tokens)
    assert schedule.is_dense == (name == "dense")
    assert Schedule.model_validate_json(schedule.model_dump_json()) == schedule


def test_csp_presets() -> None:
    spans = [("grid", 8, 64), ("all", 8, 256), ("attention", 16, 16)]
    assert summary(policy("csp", 32)) == summary(policy("csp", 32, preset="65")) == spans
    saved = 1 - policy("csp", 32).mean_visual_tokens_per_layer / 256
    assert saved == pytest.approx(0.656, abs=5e-4)
    lean = policy("csp", 32, preset="70")
    assert 1 - lean.mean_visual_tokens_per_layer / 256 == pytest.approx(0.703, abs=5e-4)


def test_counts_scale_with_the_image() -> None:
    assert policy("csp", 32, 576).kept_per_stage == (144, 576, 36)
    assert policy("prumerge", 32, 576).kept_per_stage == (40,)
    assert policy("prumerge+", 32, 576).kept_per_stage == (144,)
    assert policy("resprune", 32, 576).kept_per_stage == (128,)


def test_csp_without_a_stage() -> None:
    assert summary(policy("csp", 32, cluster_layers=0)) == [("all", 8, 256), ("attention", 24, 16)]
    assert summary(policy("csp", 32, cluster_layers=8, scatter_layers=24)) == [
        ("grid", 8, 64),
        ("all", 24, 256),
    ]
    assert policy("csp", 32, cluster_layers=0, scatter_layers=32).is_dense


def test_csp_of_all_tokens_is_a_control_not_dense() -> None:
    control = policy("csp", 32, cluster_tokens=256, prune_tokens=256)
    assert control.kept_per_stage == (256, 256, 256)
    assert not control.is_dense
    assert not control.depends_on_question


def test_csp_knobs_reach_the_schedule() -> None:
    schedule = policy(
        "csp",
        32,
        cluster={"name": "random", "seed_per": "image"},
        scatter="offset",
        representative="index",
        score={"row": "mean", "layers": 2, "softmax": "image_keys"},
    )
    assert schedule.stages[0].selector == selector("random", seed_per="image")
    assert (schedule.scatter, schedule.representative) == ("offset", "index")
    assert schedule.score(2) == ScoreSpec(row="mean", layers=2, softmax="image_keys")


def test_fastv_is_prune_only() -> None:
    assert summary(policy("fastv", 32)) == [("all", 2, 256), ("attention", 30, 128)]
    assert policy("fastv", 32).score(1) == ScoreSpec(row="last")
    guided = policy("fastv", 32, layer=8, kept=16, score={"row": "readout"})
    assert guided.stages == policy("csp", 32, cluster_layers=0, scatter_layers=8).stages


def test_feather_prunes_at_8_and_16_of_32() -> None:
    schedule = policy("feather", 32)
    assert summary(schedule) == [("all", 8, 256), ("feather", 8, 102), ("attention", 16, 9)]
    free = ScoreSpec(row="last", softmax="image_keys", rope=False)
    assert schedule.score(1) == schedule.score(2) == free


def test_merging_is_a_knob() -> None:
    assert not policy("prumerge+", 32).stages[0].selector.merges_features
    assert policy("prumerge+", 32, merge=True).stages[0].selector.merges_features


def test_resprune_knobs_reach_the_selector() -> None:
    rule = policy("resprune", 32, alpha=0.5, normalise=True, pooling="mean").stages[0].selector
    assert rule == selector("resprune", alpha=0.5, normalise=True, pooling="mean")


def test_custom_is_a_json_schedule() -> None:
    stages = [
        {"first_layer": 0, "last_layer": 2, "selector": {"name": "cls"}, "budget": 9},
        {"first_layer": 2, "last_layer": 4, "selector": "all", "budget": 16},
    ]
    schedule = policy("custom", 4, 16, stages=stages, scatter="copy")
    assert summary(schedule) == [("cls", 2, 9), ("all", 2, 16)]
    assert schedule.scatter == "copy"


@pytest.mark.parametrize("mean", [90, 77])
@pytest.mark.parametrize("name", RIVALS)
def test_rivals_meet_the_wanted_mean(name: str, mean: float) -> None:
    schedule = at_mean(name, mean, 32)
    assert abs(schedule.mean_visual_tokens_per_layer - mean) <= 0.75


@pytest.mark.parametrize("name", ["fastv", "random", "feather"])
def test_no_other_budget_is_closer_to_the_mean(name: str) -> None:
    best = abs(at_mean(name, 90.3, 32).mean_visual_tokens_per_layer - 90.3)
    others = [at_kept(name, k, 32).mean_visual_tokens_per_layer for k in range(36, 257)]
    assert best == min(abs(other - 90.3) for other in others)


@pytest.mark.parametrize("kept", [64, 128])
@pytest.mark.parametrize("name", RIVALS)
def test_rivals_meet_the_wanted_count(name: str, kept: int) -> None:
    schedule = at_kept(name, kept, 32)
    assert kept in schedule.kept_per_stage
    if name != "feather":
        assert schedule.kept_per_stage[-1] == kept


def test_csp_scales_cluster_and_prune_together_unless_told() -> None:
    assert at_mean("csp", 88, 32) == policy("csp", 32)
    fixed = at_mean("csp", 90, 32, cluster_tokens=64)
    assert fixed.kept_per_stage == (64, 256, 20)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: policy("csp2", 32), "choose one of dense, csp"),
        (lambda: policy("csp", 32, preset="80"), "'65' or '70'"),
        (lambda: policy("csp", 32, kept=3), "Extra inputs"),
        (lambda: policy("csp", 32, 255), "give grid"),
        (lambda: policy("csp", 32, 255, grid=(16, 16)), "has not 255 tokens"),
        (lambda: policy("csp", 8, cluster_layers=9), "the decoder has 8"),
        (lambda: policy("fastv", 2, layer=3), "the decoder has 2"),
        (lambda: policy("random", 32, kept=300), "keeps 300 of 256"),
        (lambda: policy("feather", 32, kept=20), "raise the budget to 36"),
        (lambda: at_mean("fastv", 90, 32, layer=16), "change its layers"),
        (lambda: at_mean("dense", 90, 32), "no single count"),
        (lambda: at_kept("custom", 64, 32, stages=[]), "no single count"),
    ],
)
def test_impossible_wishes_are_refused_with_the_reason(call, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        call()


def test_other_grids_are_taken() -> None:
    assert policy("csp", 32, 128, grid=(8, 16)).grid == (8, 16)
    assert at_mean("random", 30, 32, 128, grid=(8, 16)).kept_per_stage == (30,)
