"""Encoder layers that see no further than their neighbours need not be run on padding.

SAM pads every photo to a square: a quarter of it for 4:3, 44 % for 16:9. What the first layers make
of padding far from the photo is the same for all photos, so it is computed once; these layers then
run on the photo's corner of the square alone, as much further as they see.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

SIZES = 32
"""How many sizes a side is cut to."""

Extent = tuple[int, int]
"""Rows and columns, counted from the upper left corner."""


@dataclass(frozen=True)
class Convolution:
    """Along one side: a row of the output sees `kernel` rows of the input."""

    kernel: int
    stride: int
    padding: int

    def reached(self, count: int) -> int:
        """How many rows of the output see the first `count` rows of the input."""
        return (count - 1 + self.padding) // self.stride + 1

    def needed(self, count: int) -> int:
        """How many rows of the input the first `count` rows of the output see."""
        return self.stride * (count - 1) - self.padding + self.kernel


@dataclass(frozen=True)
class Windows:
    """Attention within windows of `side` rows."""

    side: int

    def reached(self, count: int) -> int:
        """See `Convolution`."""
        return -(-count // self.side) * self.side

    needed = reached


@dataclass(frozen=True)
class LocalLayers:
    """Layers [B, C, H, W] -> [B, D, h, w] and how far they see, in order."""

    layers: Callable[[Tensor], Tensor]
    sight: Sequence[Convolution | Windows]

    def reached(self, seen: Extent) -> Extent:
        """What of the output sees this extent of the input; may be more than there is."""
        rows, columns = seen
        for step in self.sight:
            rows, columns = step.reached(rows), step.reached(columns)
        return rows, columns

    def needed(self, seen: Extent) -> Extent:
        """What of the input this extent of the output sees; may be more than there is."""
        rows, columns = seen
        for step in reversed(self.sight):
            rows, columns = step.needed(rows), step.needed(columns)
        return rows, columns


class LocalStack:
    """The first layers of an encoder, in parts after which it may be worth to cut again.

    For inference: gradients end at what is kept of padding, and a BatchNorm in training mode sees
    more than its neighbours.
    """

    def __init__(self, parts: Sequence[LocalLayers]) -> None:
        self._parts = parts
        self._blanks: list[Tensor] = []
        self._blanks_of: tuple[object, ...] = ()

    def __call__(self, features: Tensor, seen: Extent | None) -> Tensor:
        """Run them.

        `features`: [B, C, H, W], padding right of and below the extent `seen`; None: run them on
        all of it. Returns: [B, D, h, w].
        """
        if seen is None or seen == tuple(features.shape[2:]):
            for part in self._parts:
                features = part.layers(features)
            return features
        for part, blank in zip(self._parts, self._blanks_like(features), strict=True):
            features, seen = _on_corner(part, features, seen, blank)
        return features

    def forget(self) -> None:
        """Drop what is kept of padding; call after changing the weights in place."""
        self._blanks = []

    def _blanks_like(self, features: Tensor) -> list[Tensor]:
        """What each part makes of nothing but padding [1, D, h, w], computed once."""
        one = features[:1]
        kind = (one.dtype, one.device, one.shape)
        if not self._blanks or kind != self._blanks_of:
            made, blank = [], torch.zeros_like(one)
            for part in self._parts:
                blank = part.layers(blank)
                made.append(blank)
            self._blanks, self._blanks_of = made, kind
        return self._blanks


def _on_corner(
    part: LocalLayers, features: Tensor, seen: Extent, blank: Tensor
) -> tuple[Tensor, Extent]:
    """A part's output, and the extent within which it differs from `blank`."""
    height, width = features.shape[2:]
    rows, columns = part.reached(seen)
    reached = (min(rows, blank.shape[2]), min(columns, blank.shape[3]))
    needed_rows, needed_columns = part.needed(reached)
    cut = (_rounded_up(needed_rows, height), _rounded_up(needed_columns, width))
    if cut == (height, width):
        return part.layers(features), reached
    corner = part.layers(features[..., : cut[0], : cut[1]])
    whole = blank.expand(len(features), -1, -1, -1).clone(memory_format=torch.channels_last)
    whole[..., : reached[0], : reached[1]] = corner[..., : reached[0], : reached[1]]
    return whole, reached


def _rounded_up(count: int, side: int) -> int:
    """To few different sizes: for each that is new to it, oneDNN makes code."""
    unit = max(1, side // SIZES)
    return min(-(-count // unit) * unit, side)
