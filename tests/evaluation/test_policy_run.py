"""Policies as they are written on the command line and in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vllm_csp.evaluation.engine import plan_hosts
from vllm_csp.evaluation.policy_run import PolicyRun, engine_section, read_policy_runs
from vllm_csp.evaluation.sam_options import SamOptions
from vllm_csp.tokens import policy

SIZES = [(12, 256), (32, 256), (40, 576)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dense", PolicyRun("dense")),
        ("csp:preset=70", PolicyRun("csp:preset=70", "csp", {"preset": "70"})),
        (
            "csp:cluster=random,prune_tokens=8",
            PolicyRun(
                "csp:cluster=random,prune_tokens=8", "csp", {"cluster": "random", "prune_tokens": 8}
            ),
        ),
        (
            'fastv:{"layer": 8, "score": {"rope": false}}',
            PolicyRun(
                'fastv:{"layer": 8, "score": {"rope": false}}',
                "fastv",
                {"layer": 8, "score": {"rope": False}},
            ),
        ),
        ("random:mean=90", PolicyRun("random:mean=90", "random", {}, mean=90)),
        ("random:keep=64", PolicyRun("random:keep=64", "random", {}, kept=64)),
        ("dense:image_scale=0.6", PolicyRun("dense:image_scale=0.6", image_scale=0.6)),
        (
            "dense:sam_image_size=512",
            PolicyRun("dense:sam_image_size=512", sam=SamOptions(sam_image_size=512)),
        ),
        (
            "dense:sam_quantization=int8",
            PolicyRun("dense:sam_quantization=int8", sam=SamOptions(sam_quantization="int8")),
        ),
    ],
)
def test_text(text: str, expected: PolicyRun) -> None:
    assert PolicyRun.from_text(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("csp:preset", "name=value"),
        ("csp:{preset: 65}", "policy"),
        ("csp:mean=90,keep=64", "not both"),
        ("dense:image_scale=1.5", "image_scale"),
        ("dense:image_scale=0", "image_scale"),
        ("dense:sam_image_size=500", "multiple of 64"),
        ("dense:sam_image_size=large", "sam_image_size"),
        ("dense:sam_quantization=int4", "sam_quantization"),
    ],
)
def test_wrong_text_says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyRun.from_text(text)


@pytest.mark.parametrize("text", ["csq", "csp:prest=65", "csp:mean=5", "fastv:layer=64"])
def test_impossible_policies_are_named(text: str) -> None:
    with pytest.raises(ValueError, match=text.split(":")[0]):
        PolicyRun.from_text(text).schedule(12, 256)


def test_a_budget_is_met_on_any_decoder() -> None:
    for layers, tokens in SIZES:
        wanted = 0.35 * tokens
        for name in ("csp", "feather", "prumerge+", "resprune", "random", "fastv:layer=L/8"):
            run = PolicyRun.from_text(name)
            found = PolicyRun(run.name, run.policy, run.knobs, mean=wanted).schedule(layers, tokens)
            assert found.mean_visual_tokens_per_layer == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize(
    ("share", "layer"), [("L/4", 3), ("3L/8", 4), ("L/64", 1), (5, 5), ("5", None)]
)
def test_layers_may_be_a_share_of_the_decoder(share: Any, layer: int | None) -> None:
    run = PolicyRun("fastv", "fastv", {"layer": share, "kept": 8})
    if layer is None:  # A text that is no share is the knob's own business.
        layer = 5
    assert run.schedule(12, 256).stages[0].last_layer == layer


def test_the_engine_gets_the_schedule_itself() -> None:
    schedule = PolicyRun.from_text("csp:mean=90,scatter=offset").schedule(12, 256)
    section = engine_section(schedule)
    assert policy(section.pop("policy"), 12, 256, **section) == schedule
    assert engine_section(policy("dense", 12)) == {"policy": "dense"}


def test_a_file_and_texts_make_one_list(tmp_path: Path) -> None:
    file = tmp_path / "policies.json"
    file.write_text(json.dumps([{"policy": "csp", "cluster": "cls"}, {"name": "x", "keep": 9}]))
    runs = read_policy_runs(["fastv"], file)
    assert [run.name for run in runs] == ["csp:cluster=cls", "x", "fastv"]
    assert read_policy_runs([]) == [PolicyRun("dense")]


def test_two_policies_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="called csp"):
        read_policy_runs(["csp", "csp"])
    (tmp_path / "p.json").write_text('{"policy": "csp"}')
    with pytest.raises(ValueError, match="JSON list"):
        read_policy_runs([], tmp_path / "p.json")


@pytest.mark.parametrize(("layers", "tokens"), SIZES[:2])
def test_the_standard_sweep_fits_small_and_large_decoders(layers: int, tokens: int) -> None:
    """Budgets of one group differ by at most one token of the mean in a hundred."""
    runs = read_policy_runs([], Path(__file__).parents[2] / "benchmarks" / "ranking.json")
    for run in runs:
        schedule = run.schedule(layers, tokens)
        if run.mean is not None:
            assert schedule.mean_visual_tokens_per_layer == pytest.approx(run.mean, rel=0.01)
    assert len(plan_hosts(runs, (layers, tokens), share=True)) <= 25
