"""Which image tokens go through which layers."""

from __future__ import annotations

from functools import cached_property
from math import isqrt
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vllm_csp.tokens.scatter import RepresentativeRule, ScatterMode
from vllm_csp.tokens.selectors import AnySelector, ScoreSpec


def square_grid(num_image_tokens: int) -> tuple[int, int]:
    """(side, side) for a square number of image tokens; ValueError otherwise."""
    side = isqrt(max(num_image_tokens, 0))
    if side * side != num_image_tokens:
        raise ValueError(
            f"{num_image_tokens} image tokens are not a square: give grid=(rows, columns)"
        )
    return side, side


class Stage(BaseModel):
    """Layers first_layer..last_layer - 1, run on ``budget`` image tokens chosen by ``selector``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    first_layer: int = Field(ge=0)
    last_layer: int = Field(ge=1)
    selector: AnySelector
    budget: int = Field(ge=1)

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return self.last_layer - self.first_layer


class Schedule(BaseModel):
    """Stages that tile the decoder's layers, for images of rows * columns = N tokens.

    Each stage's set is chosen among all N tokens, so a later stage may take back what an earlier
    one left out, unless its selector says ``subset_of_previous``. Sets are kept in original order
    with original position ids. JSON: ``model_dump_json`` and ``model_validate_json``.

    scatter, representative: what tokens hold that come back (``scatter.reactivate``).

    Raises:
        pydantic.ValidationError: the stages do not tile, or a stage is impossible.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_layers: int = Field(ge=1)
    num_image_tokens: int = Field(ge=1)
    grid: tuple[int, int]
    stages: tuple[Stage, ...] = Field(min_length=1)
    scatter: ScatterMode = "copy"
    representative: RepresentativeRule = "grid"

    @model_validator(mode="before")
    @classmethod
    def _square_grid(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("grid") is not None:
            return data
        total = data.get("num_image_tokens")
        if not isinstance(total, int) or total < 1:
            return data
        return {**data, "grid": square_grid(total)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        rows, columns = self.grid
        if rows * columns != self.num_image_tokens:
            raise ValueError(
                f"grid {rows} x {columns} has {rows * columns} tokens, "
                f"num_image_tokens is {self.num_image_tokens}"
            )
        self._check_tiling()
        for index in range(len(self.stages)):
            self._check_stage(index)
        return self

    def _check_tiling(self) -> None:
        expected = 0
        for index, stage in enumerate(self.stages):
            if stage.first_layer != expected:
                raise ValueError(
                    f"stage {index} starts at layer {stage.first_layer}, but layer {expected} is "
                    f"next: stages must follow each other without gap or overlap"
                )
            if stage.num_layers < 1:
                raise ValueError(
                    f"stage {index} covers no layer ({stage.first_layer} up to, not including, "
                    f"{stage.last_layer}): drop it or raise last_layer"
                )
            expected = stage.last_layer
        if expected != self.num_layers:
            raise ValueError(
                f"the stages end at layer {expected}, the decoder has {self.num_layers}: "
                f"set the last stage's last_layer to {self.num_layers}"
            )

    def _check_stage(self, index: int) -> None:
        stage, total = self.stages[index], self.num_image_tokens
        name = stage.selector.name
        if stage.budget > total:
            raise ValueError(
                f"stage {index} keeps {stage.budget} of {total} image tokens: lower its budget"
            )
        if stage.budget < total or name == "all":
            stage.selector.check(stage.budget, self.grid)
        if stage.selector.merges_features and index > 0:
            raise ValueError(
                f"stage {index}: '{name}' merges features before the first layer; "
                f"move it to stage 0 or set merge_dropped to false"
            )
        score = stage.selector.attention_score
        if index == 0:
            if score is not None:
                raise ValueError(
                    f"stage 0: '{name}' scores tokens by the layer before the stage, and there is "
                    f"none; put a stage in front of it or use a selector that needs no attention"
                )
            return
        previous = self.stages[index - 1]
        if stage.selector.subset_of_previous and stage.budget > previous.budget:
            raise ValueError(
                f"stage {index}: '{name}' chooses among the {previous.budget} tokens of stage "
                f"{index - 1} and cannot keep {stage.budget}: lower its budget, or put a stage "
                f"that keeps more in front of it"
            )
        if score is not None and score.layers > previous.num_layers:
            raise ValueError(
                f"stage {index}: the score averages {score.layers} layers, stage {index - 1} has "
                f"{previous.num_layers}: lower score.layers"
            )
        same = (previous.selector, previous.budget) == (stage.selector, stage.budget)
        if same and score is None:
            raise ValueError(
                f"stages {index - 1} and {index} keep the same tokens: join them into one stage"
            )

    @cached_property
    def kept_per_stage(self) -> tuple[int, ...]:
        """Image tokens kept in each stage."""
        return tuple(stage.budget for stage in self.stages)

    @property
    def layout(self) -> tuple[tuple[int, ...], ...]:
        """The grid, then (first layer, last layer, budget) of each stage.

        Schedules of equal layout need the same KV cache, so requests may choose between them.
        """
        return (self.grid, *((s.first_layer, s.last_layer, s.budget) for s in self.stages))

    @property
    def image_token_layers(self) -> int:
        """Sum over the layers of the image tokens each one runs on."""
        return sum(stage.num_layers * stage.budget for stage in self.stages)

    @property
    def mean_visual_tokens_per_layer(self) -> float:
        """Image tokens of the average layer."""
        return self.image_token_layers / self.num_layers

    @cached_property
    def is_dense(self) -> bool:
        """Whether the engine should run unmodified: one stage that keeps every token.

        Several stages that all keep every token compute the same but go through the staged path,
        which makes them its control.
        """
        return len(self.stages) == 1 and self.stages[0].budget == self.num_image_tokens

    @cached_property
    def depends_on_question(self) -> bool:
        """Whether a stage's choice depends on more than the image: no prefix caching then."""
        return any(self.stage_depends_on_question(index) for index in range(len(self.stages)))

    def stage_depends_on_question(self, index: int) -> bool:
        """Whether the choice of stage ``index`` depends on more than the image."""
        stage = self.stages[index]
        return stage.budget < self.num_image_tokens and stage.selector.depends_on_question

    @cached_property
    def image_stages(self) -> int:
        """How many leading stages choose by the image alone.

        In them all rows up to the image's end are the same for every question about the image.
        """
        for index, stage in enumerate(self.stages):
            drawn = "seeds" in stage.selector.needs and stage.budget < self.num_image_tokens
            if drawn or self.stage_depends_on_question(index):
                return index
        return len(self.stages)

    def stage_of(self, layer: int) -> int:
        """The stage that layer belongs to; IndexError outside the decoder."""
        for index, stage in enumerate(self.stages):
            if stage.first_layer <= layer < stage.last_layer:
                return index
        raise IndexError(f"layer {layer} is outside 0..{self.num_layers - 1}")

    def score(self, index: int) -> ScoreSpec | None:
        """The attention stage ``index`` is chosen by, None if it needs none."""
        stage = self.stages[index]
        return stage.selector.attention_score if stage.budget < self.num_image_tokens else None

    def reexpands(self, index: int) -> bool:
        """Whether stage ``index`` takes tokens that the stage before did not run on.

        Those enter with what ``scatter`` says.
        """
        if index == 0 or self.stages[index].selector.subset_of_previous:
            return False
        return self.stages[index - 1].budget < self.num_image_tokens

    def __str__(self) -> str:
        """One line: layers, selector and budget of each stage."""
        parts = (
            f"layers {s.first_layer}-{s.last_layer - 1} {s.selector.name} {s.budget}"
            for s in self.stages
        )
        return f"{', '.join(parts)} of {self.num_image_tokens} image tokens"
