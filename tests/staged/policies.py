"""Policies as users write them, with the stages that they must mean for 8 layers and 256 tokens.

The stages are written out by hand from the documentation of the methods.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.staged.plans import Plan, Stage

ALL = 256


@dataclass(frozen=True)
class Case:
    """`additional_config["csp"]`, and its meaning."""

    name: str
    csp: dict[str, Any]
    plan: Plan

    def __str__(self) -> str:
        return self.name

    @property
    def first_layers(self) -> list[int]:
        """Where the stages begin."""
        return [stage.first for stage in self.plan.stages]


def _case(name: str, csp: dict[str, Any], *stages: Stage, **options: str) -> Case:
    return Case(name, csp, Plan(stages, **options))


def _csp(name: str, rule: str = "grid", many: int = 64, few: int = 16, **knobs: Any) -> Case:
    scatter = {key: knobs[key] for key in ("scatter", "representative") if key in knobs}
    stages = (
        Stage(0, 2, rule, many),
        Stage(2, 4, "all", ALL),
        Stage(4, 8, "attention", few, **knobs.get("score", {})),
    )
    return _case(name, {"policy": "csp", **knobs}, *stages, **scatter)


def _from_start(name: str, rule: str, count: int, **knobs: Any) -> Case:
    return _case(name, knobs, Stage(0, 8, rule, count, merge=knobs.get("merge", False)))


DENSE = _case(
    "dense",
    {"policy": "dense"},
    # Three stages only for the probe: they keep all tokens.
    Stage(0, 2, "all", ALL),
    Stage(2, 4, "all", ALL),
    Stage(4, 8, "all", ALL),
)
CSP = _csp("csp-65")
FASTV = _case("fastv", {"policy": "fastv"}, Stage(0, 2, "all", ALL), Stage(2, 8, "attention", 128))
CASES = [
    DENSE,
    CSP,
    _csp("csp-70", many=32, few=8, preset="70"),
    _csp("csp-uniform", "uniform", cluster="uniform"),
    _csp("csp-random", "random", cluster="random"),
    _csp("csp-cls", "cls", cluster="cls"),
    _csp("csp-seg-first", "seg_first", cluster="seg_first"),
    _csp("csp-offset", scatter="offset"),
    _csp("csp-embedding", scatter="embedding"),
    _csp("csp-offset-along-the-sequence", scatter="offset", representative="index"),
    _csp("csp-odd-grid", many=50, few=16, cluster_tokens=50),
    _csp("csp-by-seg", score={"row": "seg"}),
    _csp("csp-by-both", scatter="offset", score={"row": "mean", "layers": 2, "rope": False}),
    FASTV,
    _case(
        "feather",
        {"policy": "feather"},
        Stage(0, 2, "all", ALL),
        Stage(2, 4, "feather", 102, softmax="image_keys", rope=False),
        Stage(4, 8, "attention", 9, softmax="image_keys", rope=False),
    ),
    _from_start("prumerge", "prumerge", 18, policy="prumerge"),
    _from_start("prumerge-merging", "prumerge", 18, policy="prumerge", merge=True),
    _from_start("prumerge+", "prumerge+", 64, policy="prumerge+"),
    _from_start("prumerge+-merging", "prumerge+", 64, policy="prumerge+", merge=True),
    _from_start("resprune", "resprune", 57, policy="resprune"),
    _from_start("random", "random", 64, policy="random"),
    _case(
        "custom",
        {
            "policy": "custom",
            "scatter": "offset",
            "stages": [
                {"first_layer": 0, "last_layer": 2, "selector": "all", "budget": 256},
                {
                    "first_layer": 2,
                    "last_layer": 3,
                    "selector": {
                        "name": "attention",
                        "score": {"layers": 2, "softmax": "image_keys"},
                    },
                    "budget": 96,
                },
                {"first_layer": 3, "last_layer": 6, "selector": "cls", "budget": 128},
                {
                    "first_layer": 6,
                    "last_layer": 8,
                    "selector": {"name": "attention", "score": {"rope": False}},
                    "budget": 24,
                },
            ],
        },
        Stage(0, 2, "all", ALL),
        Stage(2, 3, "attention", 96, softmax="image_keys", layers=2),
        Stage(3, 6, "cls", 128),
        Stage(6, 8, "attention", 24, rope=False),
        scatter="offset",
    ),
]
