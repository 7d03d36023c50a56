"""Policies to compare: from the command line or a JSON file to settings of an engine."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vllm_csp.config import CspConfig
from vllm_csp.evaluation.sam_options import SamOptions
from vllm_csp.tokens import Schedule, at_kept, at_mean, policy

_LAYERS = re.compile(r"(\d*)L(?:/(\d+))?")
_LAYER_KNOBS = ("layer", "late_layer", "cluster_layers", "scatter_layers")


@dataclass(frozen=True)
class PolicyRun:
    """One row of the comparison.

    policy, knobs: as in the server's `csp` setting; a number of layers may be a share such as
    "L/4". mean or kept: scale the counts to this mean of visual tokens per layer, or to so many
    tokens after the first pruning. image_scale below 1: photos are shrunk by that factor and
    enlarged again before the model sees them. sam: settings of the engine.
    """

    name: str
    policy: str = "dense"
    knobs: Mapping[str, Any] = field(default_factory=dict)
    mean: float | None = None
    kept: int | None = None
    image_scale: float = 1.0
    sam: SamOptions = field(default_factory=SamOptions)

    @classmethod
    def from_object(cls, values: Mapping[str, Any]) -> PolicyRun:
        """From JSON: `policy`, its knobs, and any of the other fields; `kept` is called `keep`.

        Raises: ValueError for values that cannot be.
        """
        knobs = dict(values)
        name, chosen = knobs.pop("name", None), knobs.pop("policy", "dense")
        mean, kept = knobs.pop("mean", None), knobs.pop("keep", None)
        scale = float(knobs.pop("image_scale", 1.0))
        sam = SamOptions.take(knobs, f"policy {name or chosen}")
        if mean is not None and kept is not None:
            raise ValueError(f"policy {name or chosen}: give `mean` or `keep`, not both")
        if not 0 < scale <= 1:
            raise ValueError(f"policy {name or chosen}: image_scale must be above 0, at most 1")
        return cls(name or _name_of(values), chosen, knobs, mean, kept, scale, sam)

    @classmethod
    def from_text(cls, text: str) -> PolicyRun:
        """From `policy`, `policy:knob=value,...` or `policy:{JSON object of knobs}`."""
        chosen, _, rest = text.partition(":")
        if rest.startswith("{"):
            try:
                knobs = json.loads(rest)
            except json.JSONDecodeError as error:
                raise ValueError(f"policy {text!r}: {error}") from error
        else:
            pairs = [pair.partition("=") for pair in rest.split(",") if pair]
            if any(not equals for _, equals, _ in pairs):
                raise ValueError(f"policy {text!r}: write knobs as name=value, or as a JSON object")
            knobs = {name.strip(): _value(name.strip(), value) for name, _, value in pairs}
        return cls.from_object({"name": text, "policy": chosen, **knobs})

    def schedule(self, num_layers: int, num_image_tokens: int) -> Schedule:
        """Which image tokens go through which layers of that model.

        Raises: ValueError for unknown or impossible knobs, and for budgets out of reach.
        """
        knobs = {
            name: _layers(value, num_layers) if name in _LAYER_KNOBS else value
            for name, value in self.knobs.items()
        }
        try:
            if self.mean is not None:
                return at_mean(self.policy, self.mean, num_layers, num_image_tokens, **knobs)
            if self.kept is not None:
                return at_kept(self.policy, self.kept, num_layers, num_image_tokens, **knobs)
            return policy(self.policy, num_layers, num_image_tokens, **knobs)
        except ValueError as error:
            raise ValueError(f"policy {self.name!r}: {error}") from error


def read_policy_runs(texts: Sequence[str], file: Path | None = None) -> list[PolicyRun]:
    """Those of the file, a JSON list of objects, then those in text; `dense` if there are none.

    Raises: ValueError when two have one name, or one cannot be read.
    """
    runs = []
    if file is not None:
        content = json.loads(file.read_text())
        if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
            raise ValueError(f'{file} must be a JSON list of objects such as {{"policy": "csp"}}')
        runs += [PolicyRun.from_object(one) for one in content]
    runs += [PolicyRun.from_text(text) for text in texts]
    names = [run.name for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several policies are called {', '.join(twice)}: give them a `name`")
    return runs or [PolicyRun("dense")]


def engine_section(schedule: Schedule) -> dict[str, Any]:
    """The `csp` setting that makes an engine follow a schedule."""
    if schedule.is_dense:
        return {"policy": "dense"}
    content = json.loads(schedule.model_dump_json())
    shared = {name: content[name] for name in ("stages", "scatter", "representative")}
    section = {"policy": "custom", **shared}
    CspConfig.from_section(section, "the policy")
    return section


def _name_of(values: Mapping[str, Any]) -> str:
    knobs = [f"{name}={value}" for name, value in values.items() if name != "policy"]
    return ":".join([str(values.get("policy", "dense")), *([",".join(knobs)] if knobs else [])])


def _value(name: str, text: str) -> Any:
    if name == "preset":  # Named by a number, yet a text.
        return text
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _layers(value: Any, num_layers: int) -> Any:
    """A number of layers from "L", "L/4" or "3L/8"; at least 1. Anything else as it is."""
    matched = _LAYERS.fullmatch(value) if isinstance(value, str) else None
    if matched is None:
        return value
    part, whole = int(matched[1] or 1), int(matched[2] or 1)
    return max(1, round(part * num_layers / whole))
