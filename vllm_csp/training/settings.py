"""What a training run is made of; written beside its state, so that it goes on as it began."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TrainingSettings(BaseModel):
    """Sizes of the batches, length and learning rates of a run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(5000, description="Optimiser steps in all.")
    blind_until: int = Field(1000, description="Step until which the language model sees no image.")
    decoder_from: int = Field(3600, description="Step from which masks are decoded and trained on.")
    seed: int = Field(0, description="Seed of weights, pictures and questions.")

    fresh_scenes: int = Field(5, description="New scenes per step, without the mask decoder.")
    fresh_photos: int = Field(2, description="Augmented photos per step, without it.")
    embedded: int = Field(4, description="Pictures with a SAM embedding per step.")
    scene_share: float = Field(0.35, description="Share of scenes among these.")
    questions: int = Field(14, description="Questions per picture at most.")
    masks: int = Field(12, description="Masks decoded per step at most.")
    masks_every: int = Field(2, ge=1, description="Steps from one with decoded masks to the next.")
    emphasis: dict[str, float] = Field(
        {"same": 4, "absent": 3, "counting": 2, "category": 1.5, "shape": 1.5, "two_hop": 1.5},
        description="How much rather questions of a kind are asked about scenes than others.",
    )

    matrix_learning_rate: float = Field(5e-3, description="Of the matrices of the new networks.")
    learning_rate: float = Field(2e-3, description="Of all else that is new.")
    decoder_learning_rate: float = Field(
        2.5e-3, description="Of SAM's mask decoder; a fifth of it is left when it joins."
    )
    weight_decay: float = 0.05
    warmup: int = 50
    clip_norm: float = 1.0

    text_weight: float = Field(4.0, description="Of the words of the answer.")
    grid_weight: float = Field(1.0, description="Of the masks on CLIP's grid.")
    word_weight: float = Field(1.0, description="Of what each patch shows.")
    meaning_weight: float = Field(0.5, description="Of the words that hold of the target.")
    look_weight: float = Field(0.4, description="Of where supervised attention heads look.")
    row_place_weight: float = Field(2.0, description="Of where an image row says it is.")
    place_weight: float = Field(10.0, description="Of where the target is.")
    point_weight: float = Field(1.0, description="Of the point prompt, before decoder_from.")
    late_point_weight: float = Field(0.5, description="Of the point prompt, after it.")
