"""What a selector may look at when it chooses image tokens."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

Need = Literal[
    "image_features",
    "cls_attention",
    "key_features",
    "text_embeddings",
    "text_mask",
    "readout_scores",
    "seeds",
    "instance_masks",
]

_ORIGIN: dict[Need, str] = {
    "image_features": "the projector output [B, N, D]",
    "cls_attention": "the vision tower's CLS attention [B, N]",
    "key_features": "the vision tower's key projections [B, N, Dk]",
    "text_embeddings": "the embedded words of the question [B, T, D]",
    "text_mask": "which of text_embeddings are words [B, T]",
    "readout_scores": "the attention of the score row over the image keys [B, N]",
    "seeds": "one integer per request [B]",
    "instance_masks": "instance masks on the token grid [B, M, N]",
}
_RANK: dict[str, int] = {
    "previous": 2,
    "image_features": 3,
    "cls_attention": 2,
    "key_features": 3,
    "text_embeddings": 3,
    "text_mask": 2,
    "readout_scores": 2,
    "seeds": 1,
    "instance_masks": 3,
}
_TOKEN_AXIS: dict[str, int] = {
    "image_features": 1,
    "cls_attention": 1,
    "key_features": 1,
    "readout_scores": 1,
    "instance_masks": 2,
}
_CPU = torch.device("cpu")


class SelectionError(ValueError):
    """A selector was asked for something that its inputs do not allow."""


@dataclass(frozen=True)
class SelectionInputs:
    """The tensors of B requests of N = rows * columns image tokens, all on ``device``.

    Optional fields are checked when a selector asks for them. ``previous`` holds the sorted
    original indices [B, P] int64 that took part in the stage before (None: all of them).
    Masks are bool, seeds int64, the rest floating point.

    Raises:
        SelectionError: a tensor's shape or device does not fit.
    """

    batch_size: int
    grid: tuple[int, int]
    device: torch.device = _CPU
    image_features: Tensor | None = None
    cls_attention: Tensor | None = None
    key_features: Tensor | None = None
    text_embeddings: Tensor | None = None
    text_mask: Tensor | None = None
    readout_scores: Tensor | None = None
    seeds: Tensor | None = None
    instance_masks: Tensor | None = None
    previous: Tensor | None = None

    def __post_init__(self) -> None:
        """Check every tensor's shape and device."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                self._check(field.name, value)

    @property
    def num_image_tokens(self) -> int:
        """N."""
        return self.grid[0] * self.grid[1]

    def get(self, need: Need, selector: str) -> Tensor:
        """The tensor a selector needs; SelectionError names it when it is missing."""
        value: Tensor | None = getattr(self, need)
        if value is None:
            raise SelectionError(
                f"selector '{selector}' needs {need} ({_ORIGIN[need]}), which was not given; "
                f"pass it in SelectionInputs or use a selector that does without"
            )
        return value

    def _check(self, name: str, value: Tensor) -> None:
        if value.ndim != _RANK[name] or value.shape[0] != self.batch_size:
            raise SelectionError(
                f"{name} must have {_RANK[name]} dimensions, the first of size "
                f"{self.batch_size}; it has shape {tuple(value.shape)}"
            )
        axis = _TOKEN_AXIS.get(name)
        if axis is not None and value.shape[axis] != self.num_image_tokens:
            raise SelectionError(
                f"{name} must have {self.num_image_tokens} image tokens "
                f"({self.grid[0]} rows x {self.grid[1]} columns) on axis {axis}; "
                f"it has shape {tuple(value.shape)}"
            )
        if value.device.type != self.device.type:
            raise SelectionError(f"{name} is on {value.device}, the selection on {self.device}")
