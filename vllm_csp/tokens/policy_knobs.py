"""The knobs of each named policy, and the schedule they make."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, ClassVar, Literal, Self

from pydantic import FailFast, Field

from vllm_csp.tokens.policy_base import Policy, share, tile
from vllm_csp.tokens.scatter import RepresentativeRule, ScatterMode
from vllm_csp.tokens.schedule import Schedule, Stage
from vllm_csp.tokens.selectors import AnySelector, ScoreSpec, SelectorSpec, selector
from vllm_csp.tokens.selectors.grid import stride_grid_size


class Dense(Policy):
    """Every token in every layer."""

    kept_knob = None

    def schedule(self, num_layers: int, grid: tuple[int, int]) -> Schedule:
        """One stage."""
        return tile(num_layers, grid, [(num_layers, selector("all"), grid[0] * grid[1])])


class Csp(Policy):
    """Cluster, scatter, prune (LVLM_CSP, arXiv 2504.10854).

    The paper's layers and counts are not public. Defaults: a quarter of the layers on
    ``cluster_tokens``, a quarter on all, the rest on ``prune_tokens``. Presets, per 256 tokens:
    "65" 64 and 16 (65.6 % fewer image-token layers), "70" 32 and 8 (70.3 %). A layer count of 0
    leaves its stage out.
    """

    kept_knob = "prune_tokens"

    preset: Literal["65", "70"] = "65"
    cluster_layers: int | None = Field(default=None, ge=0)
    scatter_layers: int | None = Field(default=None, ge=0)
    cluster_tokens: int | None = Field(default=None, ge=1)
    prune_tokens: int | None = Field(default=None, ge=1)
    cluster: AnySelector = selector("grid")
    scatter: ScatterMode = "copy"
    representative: RepresentativeRule = "grid"
    score: ScoreSpec = ScoreSpec()

    def schedule(self, num_layers: int, grid: tuple[int, int]) -> Schedule:
        """Up to three stages."""
        total = grid[0] * grid[1]
        quarter = (num_layers + 2) // 4
        cluster = quarter if self.cluster_layers is None else self.cluster_layers
        scatter = quarter if self.scatter_layers is None else self.scatter_layers
        many, few = {"65": (64, 16), "70": (32, 8)}[self.preset]
        spans = (
            (cluster, self.cluster, self.cluster_tokens or share(total, many, 256)),
            (scatter, selector("all"), total),
            (
                num_layers - cluster - scatter,
                selector("attention", score=self.score),
                self.prune_tokens or share(total, few, 256),
            ),
        )
        return tile(
            num_layers, grid, spans, scatter=self.scatter, representative=self.representative
        )

    def scaled_to(self, kept: int, grid: tuple[int, int]) -> Self:
        """As the presets: four times as many cluster tokens, unless their count was given."""
        if self.cluster_tokens is not None:
            return self.with_kept(kept)
        cluster = min(4 * kept, grid[0] * grid[1])
        return self.model_copy(update={"prune_tokens": kept, "cluster_tokens": cluster})


class FastV(Policy):
    """All tokens up to ``layer``, from there the ``kept`` best by the last row (FastV, ECCV 2024).

    Defaults are the paper's K = 2 and half of the tokens; K = 2 of 32 layers makes 16 KV groups.
    """

    layer: int = Field(default=2, ge=1)
    kept: int | None = Field(default=None, ge=1)
    score: ScoreSpec = ScoreSpec(row="last")

    def schedule(self, num_layers: int, grid: tuple[int, int]) -> Schedule:
        """Two stages."""
        total = grid[0] * grid[1]
        rule = selector("attention", score=self.score)
        kept = self.kept or share(total, 1, 2)
        return tile(
            num_layers,
            grid,
            [(self.layer, selector("all"), total), (num_layers - self.layer, rule, kept)],
        )


class Feather(Policy):
    """RoPE-free pruning at two layers, a grid kept at the first (FEATHER, arXiv 2412.13180).

    Defaults: layers L/4 and L/2 (8 and 16 of 32), ``ratio`` R = 0.7 dropped. ``kept`` is the count
    after the first: by default the size that (1 - R) N tokens and the grid have together if they
    are independent. ``kept_late``: (1 - R)^2 of it.
    """

    layer: int | None = Field(default=None, ge=1)
    late_layer: int | None = Field(default=None, ge=2)
    ratio: float = Field(default=0.7, gt=0, lt=1)
    stride: int = Field(default=3, ge=1)
    kept: int | None = Field(default=None, ge=1)
    kept_late: int | None = Field(default=None, ge=1)
    score: ScoreSpec = ScoreSpec(row="last", softmax="image_keys", rope=False)

    def schedule(self, num_layers: int, grid: tuple[int, int]) -> Schedule:
        """Three stages."""
        total = grid[0] * grid[1]
        layer = self.layer or max(1, num_layers // 4)
        late = self.late_layer or max(layer + 1, num_layers // 2)
        fixed = stride_grid_size(grid, self.stride)
        kept = self.kept or round((1 - self.ratio) * (total - fixed)) + fixed
        kept_late = self.kept_late or max(1, round((1 - self.ratio) ** 2 * kept))
        spans = (
            (layer, selector("all"), total),
            (late - layer, selector("feather", score=self.score, stride=self.stride), kept),
            (num_layers - late, selector("attention", score=self.score), kept_late),
        )
        return tile(num_layers, grid, spans)

    def least_kept(self, grid: tuple[int, int]) -> int:
        """The grid's size: it is always kept."""
        return stride_grid_size(grid, self.stride)


class _FromStart(Policy):
    """One choice for all layers, made before the first."""

    default_share: ClassVar[tuple[int, int]]

    kept: int | None = Field(default=None, ge=1)

    @abstractmethod
    def rule(self) -> SelectorSpec:
        """The selector."""

    def schedule(self, num_layers: int, grid: tuple[int, int]) -> Schedule:
        """One stage."""
        kept = self.kept or share(grid[0] * grid[1], *self.default_share)
        return tile(num_layers, grid, [(num_layers, self.rule(), kept)])


class PruMerge(_FromStart):
    """PruMerge (ICCV 2025) at a fixed count; its average is 40 of 576 tokens, the default share."""

    default_share = (40, 576)

    merge: bool = False

    def rule(self) -> SelectorSpec:
        """``selectors.prumerge.PruMerge``."""
        return selector("prumerge", merge_dropped=self.merge)


class PruMergePlus(_FromStart):
    """PruMerge+ (ICCV 2025) at a fixed count, by default its usual quarter (144 of 576)."""

    default_share = (1, 4)

    merge: bool = False

    def rule(self) -> SelectorSpec:
        """``selectors.prumerge.PruMergePlus``."""
        return selector("prumerge+", merge_dropped=self.merge)


class ResPrune(_FromStart):
    """ResPrune (arXiv 2603.21105), by default at its 128 of 576 tokens."""

    default_share = (128, 576)

    alpha: float = Field(default=2.0, ge=0)
    normalise: bool = False
    pooling: Literal["max", "mean"] = "max"
    negatives: Literal["shift", "clamp"] = "shift"

    def rule(self) -> SelectorSpec:
        """``selectors.resprune.ResPrune``."""
        return selector("resprune", **self.model_dump(exclude={"kept"}))


class Random(_FromStart):
    """Random tokens, a quarter by default."""

    default_share = (1, 4)

    seed_per: Literal["request", "image"] = "request"

    def rule(self) -> SelectorSpec:
        """``selectors.random.Random``."""
        return selector("random", seed_per=self.seed_per)


class Custom(Policy):
    """Stages as given: JSON objects with first_layer, last_layer, selector, budget."""

    kept_knob = None

    stages: Annotated[tuple[Stage, ...], FailFast()] = Field(max_length=1024)
    scatter: ScatterMode = "copy"
    representative: RepresentativeRule = "grid"

    def schedule(self, num_layers: int, grid: tuple[int, int]) -> Schedule:
        """The stages, checked against the model."""
        return Schedule(
            num_layers=num_layers,
            num_image_tokens=grid[0] * grid[1],
            grid=grid,
            stages=self.stages,
            scatter=self.scatter,
            representative=self.representative,
        )
