"""What the reference computes: stages, prompts, and the trace of a pass."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from zlib import crc32

import torch
from PIL import Image
from torch import Tensor

from tests.staged.selection import TOKENS


@dataclass(frozen=True)
class Stage:
    """Layers first..last - 1 on `count` image tokens chosen by `rule`.

    Options of the rules "attention" and "feather": the row that scores ("readout", the last one of
    the prompt; "seg", a [SEG] fed behind it; "mean", both), softmax ("all_keys", "image_keys"),
    rope, and how many layers before the stage are averaged.
    """

    first: int
    last: int
    rule: str
    count: int
    softmax: str = "all_keys"
    rope: bool = True
    layers: int = 1
    merge: bool = False
    row: str = "readout"

    @property
    def by_score(self) -> bool:
        """Whether a row of the language model chooses."""
        return self.rule in ("attention", "feather") and self.count < TOKENS


@dataclass(frozen=True)
class Plan:
    """What goes through which layers; scatter and representative as in the policies."""

    stages: tuple[Stage, ...]
    scatter: str = "copy"
    representative: str = "grid"

    @property
    def counts(self) -> list[int]:
        """Image tokens of each stage."""
        return [stage.count for stage in self.stages]


@dataclass(frozen=True)
class Prompt:
    """Token ids with the image's rows in place; `image_start` is None for text only.

    A seed that is not given is the CRC-32 of the ids as 64-bit little-endian words.
    """

    ids: tuple[int, ...]
    image_start: int | None = None
    image: Image.Image | None = field(default=None, compare=False)
    given_seed: int | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def seed(self) -> int:
        """What random choices depend on."""
        if self.given_seed is not None:
            return self.given_seed
        return crc32(struct.pack(f"<{len(self.ids)}q", *self.ids))


@dataclass
class Trace:
    """A pass over a sequence.

    kept: image tokens of each stage. entering: per stage, positions of its rows and the residual
    stream [rows, D] before its first layer. final: states after the last norm of the last stage's
    rows. logits: of the last row. scores: what stages were chosen by (token -> score), if here.
    """

    kept: list[list[int]] = field(default_factory=list)
    entering: list[tuple[list[int], Tensor]] = field(default_factory=list)
    final: Tensor = field(default_factory=lambda: torch.empty(0))
    logits: Tensor = field(default_factory=lambda: torch.empty(0))
    scores: dict[int, dict[int, float]] = field(default_factory=dict)
