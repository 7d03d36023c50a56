"""The words of questions: forms with their paraphrases, requests around them, and answers.

In braces: {n} is "shape" or "object", {colour} either spelling of it, the others are filled by what
is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NOUNS = ("shape", "object")
SPELLINGS = ("colour", "color")


@dataclass(frozen=True)
class Form:
    """Paraphrases: noun phrases for one thing or several, and whole questions."""

    singular: tuple[str, ...] = ()
    plural: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()


SINGULAR_REQUESTS = (
    "Can you segment {} in this image?",
    "Please segment {} in this image.",
    "Please segment {}.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
    "Where is {}? Please output segmentation mask.",
    "Where is {} in this image? Please respond with segmentation mask.",
    "Can you find {}? Please output segmentation mask.",
)
PLURAL_REQUESTS = tuple(
    request.replace("What is", "What are").replace("Where is", "Where are")
    for request in SINGULAR_REQUESTS
)
SENTENCE_REQUESTS = (
    "{} Please output segmentation mask.",
    "{} Please respond with segmentation mask.",
)

ANSWERS = {0: "It is not in this image.", 1: "It is [SEG].", 2: "They are [SEG] and [SEG]."}

DIRECTIONS: Mapping[str, tuple[str, ...]] = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "higher than"),
    "below": ("below", "lower than"),
}
EXTREMES: Mapping[str, tuple[str, ...]] = {
    "left": ("leftmost",),
    "right": ("rightmost",),
    "above": ("topmost", "highest"),
    "below": ("lowest",),
}
FARTHEST: Mapping[str, tuple[str, ...]] = {
    "left": ("farthest to the left",),
    "right": ("farthest to the right",),
    "above": ("closest to the top",),
    "below": ("closest to the bottom",),
}
RANKS: Mapping[str, tuple[str, ...]] = {
    "largest": ("largest", "biggest"),
    "smallest": ("smallest",),
    "second largest": ("second largest", "second biggest"),
    "second smallest": ("second smallest",),
}
TIMES = {2: "twice", 3: "three times", 4: "four times", 5: "five times"}

FORMS: Mapping[str, Form] = {
    "colour_shape": Form(
        singular=("the {c} {s}", "the {s} that is {c}", "the {s} in {c}"),
        sentences=("Which {s} is {c}?",),
    ),
    "fill_shape": Form(
        singular=("the {f} {s}", "the {s} that is {f}"), sentences=("Which {s} is {f}?",)
    ),
    "fill_colour": Form(
        singular=("the {f} {c} {n}", "the {c} {n} that is {f}"),
        sentences=("Which {c} {n} is {f}?",),
    ),
    "size_word_shape": Form(
        singular=("the {z} {s}", "the {s} that is {z}"), sentences=("Which {s} is {z}?",)
    ),
    "shape": Form(
        singular=("the {s}", "the {n} that is a {s}", "the {n} in the form of a {s}"),
        sentences=("Which {n} is a {s}?", "Which {n} looks like a {s}?"),
    ),
    "colour": Form(
        singular=("the {c} {n}", "the {n} that is {c}", "the {n} in {c}"),
        sentences=("Which {n} is {c}?", "Which {n} has the {colour} {c}?"),
    ),
    "all_colour": Form(
        singular=("every {c} {n}",),
        plural=("all the {c} {n}s", "all {c} {n}s", "the {c} {n}s", "all {n}s that are {c}"),
        sentences=("Which {n}s are {c}?",),
    ),
    "all_shape": Form(
        singular=("every {s}",),
        plural=("all the {ss}", "all {ss}", "the {ss}"),
        sentences=("Which {n}s are {ss}?",),
    ),
    "all_colour_shape": Form(
        singular=("every {c} {s}",),
        plural=("all the {c} {ss}", "all {c} {ss}", "the {c} {ss}", "all {ss} that are {c}"),
        sentences=("Which {ss} are {c}?",),
    ),
    "all_fill": Form(
        singular=("every {f} {n}",),
        plural=("all the {f} {n}s", "all {f} {n}s", "the {f} {n}s", "all {n}s that are {f}"),
        sentences=("Which {n}s are {f}?",),
    ),
    "size": Form(
        singular=("the {z} {n}", "the {z} of all {n}s", "the {n} that is the {z}"),
        sentences=("Which {n} is the {z}?", "Which of the {n}s is the {z}?"),
    ),
    "size_shape": Form(
        singular=("the {z} {s}", "the {z} of the {ss}", "the {s} that is the {z}"),
        sentences=("Which {s} is the {z}?", "Which of the {ss} is the {z}?"),
    ),
    "size_colour": Form(
        singular=("the {z} {c} {n}", "the {z} of the {c} {n}s"),
        sentences=("Which {c} {n} is the {z}?", "Which of the {c} {n}s is the {z}?"),
    ),
    "relation": Form(
        singular=("the {n} {d} {r}", "the {n} that is {d} {r}"),
        sentences=("Which {n} is {d} {r}?", "What is {d} {r}?"),
    ),
    "relation_shape": Form(
        singular=("the {s} {d} {r}", "the {s} that is {d} {r}"),
        sentences=("Which {s} is {d} {r}?",),
    ),
    "extreme": Form(
        singular=("the {e} {n}", "the {e} of all {n}s", "the {n} {far}", "the {n} that is {far}"),
        sentences=("Which {n} is {far}?", "Which {n} is the {e}?"),
    ),
    "extreme_shape": Form(
        singular=("the {e} {s}", "the {e} of the {ss}", "the {s} {far}"),
        sentences=("Which {s} is {far}?", "Which of the {ss} is {far}?"),
    ),
    "extreme_colour": Form(
        singular=("the {e} {c} {n}", "the {c} {n} {far}"), sentences=("Which {c} {n} is {far}?",)
    ),
    "not_colour": Form(
        singular=(
            "the {n} that is not {c}",
            "the only {n} that is not {c}",
            "the {n} whose {colour} is not {c}",
        ),
        sentences=("Which {n} is not {c}?",),
    ),
    "not_shape": Form(
        singular=("the {n} that is not a {s}", "the only {n} that is not a {s}"),
        sentences=("Which {n} is not a {s}?",),
    ),
    "not_striped": Form(
        singular=(
            "the {n} without stripes",
            "the only {n} without stripes",
            "the {n} that is not striped",
        ),
        sentences=("Which {n} has no stripes?", "Which {n} is not striped?"),
    ),
    "shape_not_colour": Form(
        singular=("the {s} that is not {c}", "the only {s} that is not {c}"),
        sentences=("Which {s} is not {c}?", "Which of the {ss} is not {c}?"),
    ),
    "colour_not_shape": Form(
        singular=("the {c} {n} that is not a {s}", "the only {c} {n} that is not a {s}"),
        sentences=("Which {c} {n} is not a {s}?",),
    ),
    "colour_times": Form(
        singular=("the {colour} that occurs {k}", "the {colour} that appears {k}"),
        plural=("the {n}s of the {colour} that occurs {k}", "all {n}s whose {colour} occurs {k}"),
        sentences=("Which {colour} occurs {k}?", "Which {colour} can be seen {k}?"),
    ),
    "shape_times": Form(
        singular=("the kind of shape that occurs {k}", "the kind of shape that appears {k}"),
        plural=("all objects whose shape occurs {k}",),
        sentences=("Which kind of shape occurs {k}?", "Which kind of shape can be seen {k}?"),
    ),
    "colour_once": Form(
        singular=("the {n} whose {colour} occurs only once", "the {colour} that occurs only once"),
        sentences=("Which {colour} occurs only once?", "Which {n} has a {colour} of its own?"),
    ),
    "shape_once": Form(
        singular=("the kind of shape that occurs only once",),
        sentences=(
            "Which kind of shape occurs only once?",
            "Which object has a shape of its own?",
            "Which object has a shape that occurs only once?",
        ),
    ),
    "same_colour": Form(
        singular=(
            "the {n} with the same {colour} as {r}",
            "the other {n} with the {colour} of {r}",
            "the {n} that has the same {colour} as {r}",
        ),
        sentences=(
            "Which {n} has the same {colour} as {r}?",
            "Which other {n} has the {colour} of {r}?",
        ),
    ),
    "same_shape": Form(
        singular=(
            "the object with the same shape as {r}",
            "the other object with the shape of {r}",
            "the object that has the same shape as {r}",
        ),
        sentences=(
            "Which object has the same shape as {r}?",
            "Which other object has the shape of {r}?",
        ),
    ),
    "two": Form(plural=("{a} and {b}",), sentences=("Where are both {a} and {b}?",)),
}
