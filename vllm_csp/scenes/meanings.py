"""What can be asked about a scene, before it is put into words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from vllm_csp.scenes.outlines import box
from vllm_csp.scenes.phrases import EXTREMES, FARTHEST, RANKS
from vllm_csp.scenes.scene import SHAPES, Scene

# How far apart what is compared must be: ratios of radii, and fractions of the image's side.
SIZE_GAP = 1.35
PLACE_GAP = 0.10
UNCLEAR = 0.03  # nearer to the reference's side than this is neither one nor the other
EDGE_GAP = 0.02


@dataclass(frozen=True)
class Meaning:
    """A question without its words.

    `form` names paraphrases of `phrases.FORMS`, `slots` are alternatives for its braces, `targets`
    the objects of each `[SEG]`.
    """

    form: str
    slots: Mapping[str, Sequence[str]]
    targets: tuple[tuple[int, ...], ...]


def about(index: int, form: str, **slots: str | Sequence[str]) -> Meaning:
    """A question about one object."""
    return about_all([index], form, **slots)


def about_all(indices: Sequence[int], form: str, **slots: str | Sequence[str]) -> Meaning:
    """A question about several objects with one mask, or about none."""
    options = {name: (v,) if isinstance(v, str) else tuple(v) for name, v in slots.items()}
    return Meaning(form, options, (tuple(indices),) if indices else ())


def names(scene: Scene, index: int) -> list[str]:
    """Noun phrases by attributes that fit this object and no other."""
    thing = scene.objects[index]
    phrases = []
    if len(scene.where(shape=thing.shape)) == 1:
        phrases.append(f"the {thing.shape}")
    if len(scene.where(colour=thing.colour)) == 1:
        phrases.append(f"the {thing.colour} {{n}}")
    if len(scene.where(colour=thing.colour, shape=thing.shape)) == 1:
        phrases.append(f"the {thing.colour} {thing.shape}")
    return phrases


def ranks(scene: Scene, group: Sequence[int]) -> dict[str, int]:
    """The objects of a group of two or more that are clearly largest, second largest, ..."""
    order = sorted(group, key=lambda index: -scene.objects[index].radius)
    radii = [scene.objects[index].radius for index in order]
    clear = [one >= SIZE_GAP * other for one, other in pairwise(radii)]
    found = {}
    if clear and clear[0]:
        found["largest"] = order[0]
    if clear and clear[-1]:
        found["smallest"] = order[-1]
    if len(order) > 2 and clear[0] and clear[1]:
        found["second largest"] = order[1]
    if len(order) > 3 and clear[-1] and clear[-2]:
        found["second smallest"] = order[-2]
    return found


def extremes(scene: Scene, group: Sequence[int]) -> dict[str, int]:
    """The objects of a group that are clearly farthest left, right, above and below.

    Clearly: by their centres, and their edges agree.
    """
    boxes = {index: box(scene.objects[index]) for index in group}
    found = {}
    for direction in EXTREMES:
        first, *others = sorted(group, key=lambda index: -along(scene, index, direction))
        edges = {index: edge(boxes[index], direction) for index in group}
        if others and all(
            along(scene, first, direction) >= along(scene, other, direction) + PLACE_GAP
            and edges[first] >= edges[other] + EDGE_GAP
            for other in others
        ):
            found[direction] = first
    return found


def along(scene: Scene, index: int, direction: str) -> float:
    """How far in a direction an object's centre is."""
    thing = scene.objects[index]
    return {"left": -thing.x, "right": thing.x, "above": -thing.y, "below": thing.y}[direction]


def edge(sides: tuple[float, float, float, float], direction: str) -> float:
    """How far in a direction a box reaches."""
    left, top, right, bottom = sides
    return {"left": -left, "right": right, "above": -top, "below": bottom}[direction]


def beyond(scene: Scene, group: Sequence[int], reference: int, direction: str) -> list[int] | None:
    """The objects of a group in that direction of the reference; None if one is unclear."""
    zero = along(scene, reference, direction)
    steps = {i: along(scene, i, direction) - zero for i in group if i != reference}
    if any(-UNCLEAR < step < PLACE_GAP for step in steps.values()):
        return None
    return [index for index, step in steps.items() if step >= PLACE_GAP]


def groups(scene: Scene, attribute: str) -> Iterator[tuple[str, list[int]]]:
    """Each value of an attribute ("colour", "shape", "fill") in the scene, and who has it."""
    values = {getattr(thing, attribute): None for thing in scene.objects}
    for value in values:
        yield value, scene.where(**{attribute: value})


def rank_meanings(scene: Scene) -> Iterator[Meaning]:
    """Who is first and second in size, of all and of those alike."""
    for rank, index in ranks(scene, range(len(scene.objects))).items():
        yield about(index, "size", z=RANKS[rank])
    for shape, group in groups(scene, "shape"):
        for rank, index in ranks(scene, group).items():
            yield about(index, "size_shape", z=RANKS[rank], s=shape, ss=SHAPES[shape])
    for colour, group in groups(scene, "colour"):
        for rank, index in ranks(scene, group).items():
            yield about(index, "size_colour", z=RANKS[rank], c=colour)


def extreme_meanings(scene: Scene) -> Iterator[Meaning]:
    """Who is farthest in a direction, of all and of those alike."""
    for side, index in extremes(scene, range(len(scene.objects))).items():
        yield about(index, "extreme", e=EXTREMES[side], far=FARTHEST[side])
    for shape, group in groups(scene, "shape"):
        for side, index in extremes(scene, group).items():
            slots = {"e": EXTREMES[side], "far": FARTHEST[side]}
            yield about(index, "extreme_shape", s=shape, ss=SHAPES[shape], **slots)
    for colour, group in groups(scene, "colour"):
        for side, index in extremes(scene, group).items():
            yield about(index, "extreme_colour", c=colour, e=EXTREMES[side], far=FARTHEST[side])
