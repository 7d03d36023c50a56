"""What the rest of SAM needs to know of an image encoder, whatever its kind."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class SamGeometry(ABC):
    """Sizes of one SAM; a subclass per kind of image encoder adds what that kind needs.

    `image_size` is the side of the padded input in pixels. `out_channels` is the width of the image
    embedding, and so of the prompts and of the mask decoder.
    """

    image_size: int
    out_channels: int

    @property
    @abstractmethod
    def grid_size(self) -> int:
        """Side of the image embedding, in cells."""

    @classmethod
    @abstractmethod
    def from_shapes(cls, shapes: Shapes) -> Self:
        """Read the geometry from tensor shapes.

        `shapes`: name to shape, names as in SAM checkpoints (`image_encoder.*`; LISA's less
        `model.visual_model.`); further names are ignored.
        Raises: ValueError naming the tensor that is missing or does not fit.
        """


def shape_of(shapes: Shapes, name: str, rank: int) -> tuple[int, ...]:
    """The shape of a tensor of `rank` dimensions.

    Raises: ValueError when it is missing or has another rank.
    """
    if name not in shapes:
        raise ValueError(f"SAM weights lack {name}")
    shape = tuple(shapes[name])
    if len(shape) != rank:
        raise ValueError(f"{name} has shape {shape}, expected {rank} dimensions")
    return shape


def count_of(shapes: Shapes, prefix: str) -> int:
    """How many numbered parts (`<prefix>0.`, `<prefix>1.`, ...) there are.

    Raises: ValueError when there is none, or a number is left out.
    """
    inside = (name.removeprefix(prefix) for name in shapes if name.startswith(prefix))
    numbers = {name.partition(".")[0] for name in inside}
    parts = {int(number) for number in numbers if number.isdecimal()}
    absent = set(range(max(parts, default=0) + 1)) - parts
    if absent:
        raise ValueError(f"SAM weights lack {prefix}{min(absent)}")
    return len(parts)
