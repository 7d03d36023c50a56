"""Which split a scene and a question belong to: their hash decides."""

from __future__ import annotations

import re
from hashlib import blake2b

from vllm_csp.scenes.scene import COLOURS, SHAPES, Split

# Of ten buckets; the others are train's.
HELD_OUT: dict[int, Split] = {8: "val", 9: "test"}
ATTRIBUTES = frozenset([*COLOURS, *SHAPES, *SHAPES.values(), "striped", "solid"])


def split_of(text: str) -> Split:
    """The split that a text belongs to, the same on every machine."""
    return HELD_OUT.get(blake2b(text.encode(), digest_size=8).digest()[0] % 10, "train")


def question_split(phrase: str, text: str) -> Split:
    """The split of a question, from its phrase ("the red circle") and its whole text.

    A phrase with two or more attribute words is one combination of template and attributes and
    belongs to one split, whatever request is around it. Fewer attribute words make too few
    combinations for that, so there the request counts as part of the template.
    """
    words = re.findall(r"[a-z]+", phrase.lower())
    attributes = sum(word in ATTRIBUTES for word in words)
    return split_of(phrase if attributes >= 2 else text)
