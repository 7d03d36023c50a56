"""Answers a question of a scene from its text alone, by another way than the generator's.

Places are taken from the visible pixels. A question whose answer hangs by a hair raises `Unclear`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np

from vllm_csp.scenes import SceneSample

COLOURS = ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white"]
SHAPES = ["circle", "square", "triangle", "star", "ring", "cross", "heart", "moon"]
NOUN = rf"(?:shape|object|color|{'|'.join(SHAPES)})"
ADJECTIVE = f"(?:{'|'.join(COLOURS)}|striped|solid|small|large)"
HEAD = f"(?:{ADJECTIVE} )*{NOUN}"
SIDES = {
    "left": "left of|to the left of|on the left of|farthest to the left|leftmost",
    "right": "right of|to the right of|on the right of|farthest to the right|rightmost",
    "above": "above|higher than|closest to the top|topmost|highest",
    "below": "below|lower than|closest to the bottom|lowest",
}
SIDE = {word: side for side, words in SIDES.items() for word in words.split("|")}
RANK = "second (?:largest|biggest|smallest)|largest|biggest|smallest"
EXTREME = "leftmost|rightmost|topmost|highest|lowest"
FAR = r"farthest to the (?:left|right)|closest to the (?:top|bottom)"
RELATION = r"(?:to the |on the )?(?:left|right) of|above|below|higher than|lower than"
TIMES = {"only once": 1, "twice": 2, "three times": 3, "four times": 4, "five times": 5}


class Unclear(Exception):
    """The question has no certain answer."""


def noun_phrase(text: str) -> str:
    """What a question asks for, without its request, in one spelling and in the singular."""
    text = re.sub(r" Please (output|respond with) segmentation mask\.$", "", text)
    text = text.replace("colour", "color").replace("crosses", "cross")
    requests = r"(Can you segment|Can you find|Please segment|What is|What are|Where is|Where are) "
    asked = re.fullmatch(requests + r"((?:both )?(?:the|all|every) .*?)( in this image)?[.?]", text)
    which = re.fullmatch(
        r"Which (of the )?(.*?) (is|are|has|occurs|looks|can be seen) (.*)\?", text
    )
    if asked:
        phrase = asked[2]
    elif which:
        phrase = f"the {which[2]} that {which[3]} {which[4]}"
    else:
        above = re.fullmatch(r"What is (.*)\?", text)
        assert above, text
        phrase = f"the shape that is {above[1]}"
    return re.sub(rf"\b({NOUN})s\b", r"\1", phrase)


def solve(sample: SceneSample, text: str) -> list[frozenset[int]]:
    """The objects of each mask that the question asks for; none if there is no such object."""
    phrase = noun_phrase(text)
    parts = re.sub("^both ", "", phrase).split(" and ")
    found = [Scene(sample).find(part) for part in parts]
    return [group for group in found if group]


class Scene:
    """Looks things up in one scene."""

    def __init__(self, sample: SceneSample) -> None:
        self.objects = sample.scene.objects
        self.everything = frozenset(range(len(self.objects)))
        places = [mask.nonzero() for mask in sample.object_masks]
        side = sample.image.width
        self.centres = [(x.mean() / side, y.mean() / side) for y, x in places]
        self.boxes = [(x.min(), y.min(), x.max(), y.max()) for y, x in places]

    def find(self, phrase: str) -> frozenset[int]:
        """The objects of a noun phrase."""
        rules: dict[str, Callable[..., Iterable[int]]] = {
            rf"({RANK}) (?:of (?:all |the )?)?({HEAD})": lambda w, h: self.rank(w, self.head(h)),
            rf"({HEAD}) (?:that is )?the ({RANK})": lambda h, w: self.rank(w, self.head(h)),
            rf"({EXTREME}) (?:of (?:all |the )?)?({HEAD})": self.extreme,
            rf"({HEAD}) that is the ({EXTREME})": lambda h, w: self.extreme(w, h),
            rf"({HEAD}) (?:that is )?({FAR})": lambda h, w: self.extreme(w, h),
            rf"({HEAD}) (?:that is )?({RELATION}) (the .*)": self.relation,
            rf"(?:only )?({HEAD}) (?:that|whose color) is not (?:a )?([a-z]+)": self.without,
            rf"(?:only )?({HEAD}) (?:without|that has no) (stripes)": self.without,
            rf"(?:other )?({HEAD}) .*\bthe (?:same )?(color|shape) (?:as|of) (the .*)": self.same,
            r".*\b(color|shape) .*\b(only once|twice|\w+ times|most often)": self.times,
            rf"({HEAD}) that has a (color|shape) of its own": lambda _, what: self.times(
                what, "only once"
            ),
            rf"({HEAD}) (?:that|in)\b.*? ({NOUN}|{ADJECTIVE})": lambda h, a: self.head(f"{a} {h}"),
            rf"({HEAD})": self.head,
        }
        phrase = re.sub("^(the|all the|all|every) ", "", phrase)
        for pattern, rule in rules.items():
            if match := re.fullmatch(pattern, phrase):
                return frozenset(rule(*match.groups()))
        raise AssertionError(f"cannot read: {phrase}")

    def one(self, phrase: str) -> int:
        """The one object of a noun phrase."""
        found = self.find(phrase)
        if len(found) != 1:
            raise Unclear(phrase)
        return next(iter(found))

    def head(self, words: str) -> frozenset[int]:
        """The objects that a few adjectives and a noun fit."""
        found = self.everything
        for word in words.split():
            if word in ("small", "large"):
                shape = words.split()[-1]
                same = self.head(shape) if shape in SHAPES else self.everything
                found &= self.rank(word + "est", same)
            else:
                found = frozenset(i for i in found if self.fits(i, word))
        return found

    def fits(self, index: int, word: str) -> bool:
        thing = self.objects[index]
        if word in COLOURS:
            return thing.colour == word
        if word in SHAPES:
            return thing.shape == word
        if word in ("striped", "solid", "stripes"):
            return thing.striped == (word != "solid")
        assert word in ("shape", "object"), word
        return True

    def rank(self, words: str, group: frozenset[int]) -> set[int]:
        sign = 1 if "smallest" in words else -1
        order = sorted(group, key=lambda i: sign * self.objects[i].radius)
        place = 1 if "second" in words else 0
        for before, after in list(pairwise(order))[: place + 1]:
            ratio = self.objects[after].radius / self.objects[before].radius
            if ratio**sign < 1.3:
                raise Unclear(words)
        return {order[place]}

    def extreme(self, words: str, head: str) -> set[int]:
        axis, sign = self.axis(SIDE[words])
        best, *others = sorted(self.head(head), key=lambda i: -sign * self.centres[i][axis])
        for other in others:
            gap = sign * (self.centres[best][axis] - self.centres[other][axis])
            corner = axis + (2 if sign > 0 else 0)
            if gap < 0.08 or sign * (self.boxes[best][corner] - self.boxes[other][corner]) <= 0:
                raise Unclear(words)
        return {best}

    @staticmethod
    def axis(side: str) -> tuple[int, int]:
        return (0 if side in ("left", "right") else 1), (1 if side in ("right", "below") else -1)

    def relation(self, head: str, words: str, reference: str) -> set[int]:
        axis, sign = self.axis(SIDE[words])
        zero = self.one(reference)
        steps = {
            i: sign * (self.centres[i][axis] - self.centres[zero][axis])
            for i in self.head(head) - {zero}
        }
        if any(-0.01 < step < 0.08 for step in steps.values()):
            raise Unclear(words)
        return {index for index, step in steps.items() if step > 0}

    def without(self, head: str, word: str) -> set[int]:
        return {index for index in self.head(head) if not self.fits(index, word)}

    def same(self, head: str, what: str, reference: str) -> set[int]:
        one = self.one(reference)
        values = self.values(what)
        return {i for i in self.head(head) - {one} if values[i] == values[one]}

    def values(self, what: str) -> list[str]:
        return [thing.colour if what == "color" else thing.shape for thing in self.objects]

    def times(self, what: str, words: str) -> set[int]:
        values = self.values(what)
        counts = Counter(values)
        wanted = max(counts.values()) if words == "most often" else TIMES[words]
        chosen = [value for value, count in counts.items() if count == wanted]
        if len(chosen) != 1:
            raise Unclear(words)
        return set(np.flatnonzero(np.array(values) == chosen[0]).tolist())
