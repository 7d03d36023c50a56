"""Draws what is in a scene and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import hypot
from random import Random

from vllm_csp.scenes.outlines import OUTLINES
from vllm_csp.scenes.scene import COLOURS, RADII, SHAPES, Scene, SceneObject, Split
from vllm_csp.scenes.splits import split_of

COUNTS = {2: 3, 3: 6, 4: 7, 5: 6, 6: 5}
STRIPED = 0.3
TOUCH = 0.88  # of the sum of two radii: how near two objects may come, so that one covers the other
EDGE = 0.012


def draw_scene(random: Random, split: Split, backgrounds: Sequence[str]) -> Scene:
    """A scene of this split; redraws until its signature's hash says so."""
    while True:
        objects = _draw_objects(random)
        scene = Scene(objects, random.choice(backgrounds))
        if split_of(scene.signature) == split and (placed := _place(random, objects)):
            return Scene(placed, scene.background)


def _draw_objects(random: Random) -> tuple[SceneObject, ...]:
    count = random.choices(list(COUNTS), list(COUNTS.values()))[0]
    colours = _draw_attribute(random, list(COLOURS), count)
    shapes = _draw_attribute(random, list(SHAPES), count)
    sizes = _draw_sizes(random, count)
    return tuple(
        _draw_object(random, *attributes) for attributes in zip(shapes, colours, sizes, strict=True)
    )


def _draw_attribute(random: Random, values: list[str], count: int) -> list[str]:
    """One value per object; often repeated, sometimes with one odd one out."""
    recipe = random.random()
    if recipe < 0.25:
        common, odd = random.sample(values, 2)
        drawn = [common] * (count - 1) + [odd]
    elif recipe < 0.7:
        few = random.sample(values, max(2, count // 2))
        drawn = few + [random.choice(few) for _ in range(count - len(few))]
    else:
        drawn = random.choices(values, k=count)
    random.shuffle(drawn)
    return drawn


def _draw_sizes(random: Random, count: int) -> list[str]:
    """One size per object; half of the time with a first and a second in size."""
    sizes = random.choices(list(RADII), k=count)
    if random.random() < 0.5:
        ranks = list(RADII) if random.random() < 0.3 else list(RADII)[::-1]
        sizes = (ranks + [ranks[-1]] * 3)[:count]
    random.shuffle(sizes)
    return sizes


def _draw_object(random: Random, shape: str, colour: str, size: str) -> SceneObject:
    red, green, blue = (min(255, c + random.randint(-9, 9)) for c in COLOURS[colour])
    return SceneObject(
        shape=shape,
        colour=colour,
        size=size,
        striped=random.random() < STRIPED,
        rgb=(red, green, blue),
        x=0.5,
        y=0.5,
        radius=RADII[size] * random.uniform(0.96, 1.04),
        turn=random.uniform(-12, 12),
    )


def _place(random: Random, objects: tuple[SceneObject, ...]) -> tuple[SceneObject, ...] | None:
    """The objects at places where none covers much of another; None if that was not found."""
    placed: dict[int, SceneObject] = {}
    for index in sorted(range(len(objects)), key=lambda i: -objects[i].radius):
        for _ in range(40):
            thing = _somewhere(random, objects[index])
            if all(_apart(thing, other) for other in placed.values()):
                placed[index] = thing
                break
        else:
            return None
    return tuple(placed[index] for index in range(len(objects)))


def _somewhere(random: Random, thing: SceneObject) -> SceneObject:
    margin = OUTLINES[thing.shape].reach * thing.radius + EDGE
    x, y = (random.uniform(margin, 1 - margin) for _ in range(2))
    return replace(thing, x=x, y=y)


def _apart(one: SceneObject, other: SceneObject) -> bool:
    reaches = [OUTLINES[thing.shape].reach * thing.radius for thing in (one, other)]
    return hypot(one.x - other.x, one.y - other.y) >= TOUCH * sum(reaches)
