"""The kinds of questions, and what each can ask about a scene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations

from vllm_csp.scenes.meanings import (
    Meaning,
    about,
    about_all,
    beyond,
    extreme_meanings,
    extremes,
    groups,
    names,
    rank_meanings,
    ranks,
)
from vllm_csp.scenes.phrases import DIRECTIONS, EXTREMES, RANKS, TIMES
from vllm_csp.scenes.scene import COLOURS, SHAPES, Scene

Finder = Callable[[Scene], Iterator[Meaning]]
# Noun phrases for one object, and which object that is.
Name = tuple[Sequence[str], int]


def attribute(scene: Scene) -> Iterator[Meaning]:
    """One object by two attributes: "the red circle", "the striped star", "the small ring"."""
    for index, thing in enumerate(scene.objects):
        if len(scene.where(colour=thing.colour, shape=thing.shape)) == 1:
            yield about(index, "colour_shape", c=thing.colour, s=thing.shape)
        if scene.where(fill=thing.fill, shape=thing.shape) == [index]:
            yield about(index, "fill_shape", f=thing.fill, s=thing.shape)
        if scene.where(fill=thing.fill, colour=thing.colour) == [index]:
            yield about(index, "fill_colour", f=thing.fill, c=thing.colour)
    for shape, group in groups(scene, "shape"):
        found = ranks(scene, group)
        for rank, word in (("largest", "large"), ("smallest", "small")):
            if rank in found:
                yield about(found[rank], "size_word_shape", z=word, s=shape)


def shape(scene: Scene) -> Iterator[Meaning]:
    """The only circle."""
    for value, group in groups(scene, "shape"):
        if len(group) == 1:
            yield about(group[0], "shape", s=value)


def colour(scene: Scene) -> Iterator[Meaning]:
    """The only red object."""
    for value, group in groups(scene, "colour"):
        if len(group) == 1:
            yield about(group[0], "colour", c=value)


def category(scene: Scene) -> Iterator[Meaning]:
    """All objects of a colour, a shape, both, or a fill; at least two, one mask."""
    for value, group in groups(scene, "colour"):
        if len(group) > 1:
            yield about_all(group, "all_colour", c=value)
    for value, group in groups(scene, "shape"):
        if len(group) > 1:
            yield about_all(group, "all_shape", s=value, ss=SHAPES[value])
        for tone in dict.fromkeys(scene.objects[index].colour for index in group):
            both = scene.where(colour=tone, shape=value)
            if 1 < len(both) < len(group):
                yield about_all(both, "all_colour_shape", c=tone, s=value, ss=SHAPES[value])
    for value, group in groups(scene, "fill"):
        if 1 < len(group) < len(scene.objects):
            yield about_all(group, "all_fill", f=value)


def relation(scene: Scene) -> Iterator[Meaning]:
    """The only object to one side of a named one."""
    named = [(names(scene, index), index) for index in range(len(scene.objects))]
    for meaning in _relations(scene, named):
        if meaning.targets:
            yield meaning


def _relations(scene: Scene, named: Sequence[Name]) -> Iterator[Meaning]:
    """One or no object to one side of each named one."""
    everything = range(len(scene.objects))
    for (phrases, reference), side in ((n, s) for n in named if n[0] for s in DIRECTIONS):
        found = beyond(scene, everything, reference, side)
        if found is not None and len(found) < 2:
            yield about_all(found, "relation", d=DIRECTIONS[side], r=phrases)
        for value, group in groups(scene, "shape"):
            found = beyond(scene, group, reference, side)
            if len(group) > 1 and found is not None and len(found) == 1:
                yield about(found[0], "relation_shape", s=value, d=DIRECTIONS[side], r=phrases)


def exclusion(scene: Scene) -> Iterator[Meaning]:
    """The only object that is not red, not a circle, not striped; of all or of those alike."""
    everything = range(len(scene.objects))
    for value, odd in _odd_ones(scene, "colour", everything):
        yield about(odd, "not_colour", c=value)
    for value, odd in _odd_ones(scene, "shape", everything):
        yield about(odd, "not_shape", s=value)
    for value, odd in _odd_ones(scene, "fill", everything):
        if value == "striped":
            yield about(odd, "not_striped")
    for form, group in groups(scene, "shape"):
        if len(group) < len(scene.objects):
            for value, odd in _odd_ones(scene, "colour", group):
                yield about(odd, "shape_not_colour", s=form, ss=SHAPES[form], c=value)
    for tone, group in groups(scene, "colour"):
        if len(group) < len(scene.objects):
            for value, odd in _odd_ones(scene, "shape", group):
                yield about(odd, "colour_not_shape", c=tone, s=value)


def _odd_ones(scene: Scene, attribute: str, group: Sequence[int]) -> Iterator[tuple[str, int]]:
    """A value that all of a group but one have, and that one."""
    values = {index: getattr(scene.objects[index], attribute) for index in group}
    for value, count in Counter(values.values()).items():
        if count == len(group) - 1:
            yield value, next(index for index in group if values[index] != value)


def counting(scene: Scene) -> Iterator[Meaning]:
    """The only colour or shape that occurs so and so often; one mask of all who have it."""
    for attribute in ("colour", "shape"):
        alike = [group for _, group in groups(scene, attribute)]
        counts = Counter(len(group) for group in alike)
        for group in alike:
            if len(alike) == 1 or counts[len(group)] > 1:
                continue
            if len(group) == 1:
                yield about(group[0], f"{attribute}_once")
            else:
                often = ["most often"] * (len(group) == max(counts))
                yield about_all(group, f"{attribute}_times", k=[TIMES[len(group)], *often])


def same(scene: Scene) -> Iterator[Meaning]:
    """The only other object with the colour or the shape of a named one."""
    for index, thing in enumerate(scene.objects):
        named = names(scene, index)
        for attribute in ("colour", "shape"):
            # A name that says the attribute itself would make it a question of another kind.
            value = getattr(thing, attribute)
            phrases = [phrase for phrase in named if value not in phrase.split()]
            others = [i for i in scene.where(**{attribute: value}) if i != index]
            if phrases and len(others) == 1:
                yield about(others[0], f"same_{attribute}", r=phrases)


def two_hop(scene: Scene) -> Iterator[Meaning]:
    """A relation to, or the colour of, an object that must be found first."""
    hops = list(_hops(scene))
    for meaning in _relations(scene, hops):
        if meaning.targets and meaning.form == "relation":
            yield meaning
    for phrases, index in hops:
        others = [i for i in scene.where(colour=scene.objects[index].colour) if i != index]
        if len(others) == 1:
            yield about(others[0], "same_colour", r=phrases)


def _hops(scene: Scene) -> Iterator[Name]:
    """Objects by size, place or exclusion."""
    everything = range(len(scene.objects))
    for rank, index in ranks(scene, everything).items():
        yield [f"the {word} {{n}}" for word in RANKS[rank]], index
    for side, index in extremes(scene, everything).items():
        yield [f"the {word} {{n}}" for word in EXTREMES[side]], index
    for value, group in groups(scene, "shape"):
        for rank, index in ranks(scene, group).items():
            yield [f"the {word} {value}" for word in RANKS[rank]], index
    if len(scene.objects) > 2:
        for value, odd in _odd_ones(scene, "colour", everything):
            yield [f"the {{n}} that is not {value}"], odd


def two(scene: Scene) -> Iterator[Meaning]:
    """Two objects, a mask for each in the order of the words."""
    named: list[Name] = [(names(scene, i), i) for i in range(len(scene.objects))]
    pairs = list(permutations([name for name in named if name[0]], 2))
    sizes = ranks(scene, range(len(scene.objects)))
    sides = extremes(scene, range(len(scene.objects)))
    for one, other in (("largest", "smallest"), ("smallest", "largest")):
        if one in sizes and other in sizes:
            pairs.append((_named(RANKS[one], sizes[one]), _named(RANKS[other], sizes[other])))
    for one, other in permutations(sides, 2):
        if sides[one] != sides[other]:
            pairs.append((_named(EXTREMES[one], sides[one]), _named(EXTREMES[other], sides[other])))
    for (first, one_index), (second, other_index) in pairs:
        yield Meaning("two", {"a": first, "b": second}, ((one_index,), (other_index,)))


def _named(words: Sequence[str], index: int) -> Name:
    return [f"the {word} {{n}}" for word in words], index


def absent(scene: Scene) -> Iterator[Meaning]:
    """What could be there and is not: a combination, a colour, a shape, something on a side."""
    tones = [value for value in COLOURS if scene.where(colour=value)]
    forms = [value for value in SHAPES if scene.where(shape=value)]
    for value in COLOURS:
        if value not in tones:
            yield about_all([], "colour", c=value)
    for value in SHAPES:
        if value not in forms:
            yield about_all([], "shape", s=value)
    for tone in tones:
        for value in forms:
            if not scene.where(colour=tone, shape=value):
                yield about_all([], "colour_shape", c=tone, s=value)
    named: list[Name] = [(names(scene, i), i) for i in range(len(scene.objects))]
    for meaning in _relations(scene, named):
        if not meaning.targets:
            yield meaning


# The weights even out that some kinds can be asked about few scenes.
FINDERS: Mapping[str, tuple[Finder, float]] = {
    "attribute": (attribute, 1.0),
    "shape": (shape, 1.2),
    "colour": (colour, 1.2),
    "category": (category, 1.0),
    "size": (rank_meanings, 1.0),
    "relation": (relation, 1.0),
    "extreme": (extreme_meanings, 1.0),
    "exclusion": (exclusion, 1.0),
    "counting": (counting, 1.3),
    "same": (same, 8.0),
    "two_hop": (two_hop, 1.0),
    "two": (two, 1.0),
    "absent": (absent, 0.85),
}
KINDS: tuple[str, ...] = tuple(FINDERS)
