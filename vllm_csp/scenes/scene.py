"""What a scene consists of: objects with a shape, a colour, a size, a fill and a place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")

# Singular to plural.
SHAPES: Mapping[str, str] = {
    "circle": "circles",
    "square": "squares",
    "triangle": "triangles",
    "star": "stars",
    "ring": "rings",
    "cross": "crosses",
    "heart": "hearts",
    "moon": "moons",
}
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (214, 32, 36),
    "orange": (246, 134, 16),
    "yellow": (246, 220, 44),
    "green": (36, 150, 60),
    "blue": (36, 84, 220),
    "purple": (124, 44, 168),
    "pink": (250, 136, 196),
    "white": (244, 244, 244),
}
# Radii as fractions of the image's side. The smallest is 30 of 448 pixels: more than two patches of
# a vision tower that sees 224 pixels in patches of 14.
RADII: Mapping[str, float] = {"small": 0.067, "medium": 0.106, "large": 0.165}


@dataclass(frozen=True)
class SceneObject:
    """One object. Places and lengths are fractions of the image's side, y grows downwards."""

    shape: str
    colour: str
    size: str
    striped: bool
    rgb: tuple[int, int, int]
    x: float
    y: float
    radius: float
    turn: float  # degrees

    @property
    def fill(self) -> str:
        """The word for its fill."""
        return "striped" if self.striped else "solid"


@dataclass(frozen=True)
class Scene:
    """Objects in drawing order (later ones cover earlier ones) on a kind of background."""

    objects: tuple[SceneObject, ...]
    background: str

    @property
    def signature(self) -> str:
        """What the objects are, without places; no two splits share one."""
        things = sorted(f"{o.size} {o.fill} {o.colour} {o.shape}" for o in self.objects)
        return ", ".join(things)

    def where(
        self, *, colour: str | None = None, shape: str | None = None, fill: str | None = None
    ) -> list[int]:
        """Indices of the objects with these attributes."""
        return [
            index
            for index, thing in enumerate(self.objects)
            if colour in (None, thing.colour)
            and shape in (None, thing.shape)
            and fill in (None, thing.fill)
        ]
