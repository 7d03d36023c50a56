"""What is asked about a training picture: question, answer, one mask per `[SEG]`."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from vllm_csp.scenes import SceneSample
from vllm_csp.scenes.phrases import ANSWERS
from vllm_csp.scenes.scene import COLOURS, RADII, SHAPES

Mask = npt.NDArray[np.uint8]
"""1 inside, 0 outside, 255 where nobody knows."""

IGNORE = 255

# How LISA was asked (`utils/utils.py` there): short questions about a thing by name.
PHRASINGS = (
    "Can you segment the {} in this image?",
    "Please segment the {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
    "Where is the {}? Please output segmentation mask.",
    "Segment the {}.",
)


@dataclass(frozen=True)
class Asked:
    """One question about a picture; `masks` [H, W] has one entry per `[SEG]` of the answer."""

    text: str
    answer: str
    masks: tuple[Mask, ...]


@dataclass(frozen=True)
class Picture:
    """A picture and what is asked about it.

    `embedding` names its SAM embedding, if there is one. `labels` [H, W] tells where which word
    holds, for all `known` words; the vision tower learns from it what a patch shows.
    """

    image: Image.Image
    questions: tuple[Asked, ...]
    embedding: str | None = None
    labels: Mapping[str, Mask] = field(default_factory=dict)
    known: tuple[str, ...] = ()


SCENE_WORDS = (*SHAPES, *COLOURS, *RADII)


def ask_classes(
    masks: dict[str, Mask], absent: list[str], count: int, rng: random.Random
) -> tuple[Asked, ...]:
    """Questions about the classes of a photo; one in ten names two, one in ten an absent one."""
    names = sorted(masks)
    asked = []
    for name in rng.sample(names, min(count, len(names))):
        phrasing = rng.choice(PHRASINGS)
        kind = rng.random()
        if kind < 0.1 and len(names) > 1:
            other = rng.choice([own for own in names if own != name])
            text = phrasing.format(f"{name} and the {other}")
            asked.append(Asked(text, ANSWERS[2], (masks[name], masks[other])))
        elif kind < 0.2 and absent:
            asked.append(Asked(phrasing.format(rng.choice(absent)), ANSWERS[0], ()))
        else:
            asked.append(Asked(phrasing.format(name), ANSWERS[1], (masks[name],)))
    return tuple(asked)


def from_scene(
    sample: SceneSample,
    count: int,
    emphasis: Mapping[str, float],
    rng: random.Random,
    embedding: str | None,
) -> Picture:
    """The picture of a scene and `count` of its questions, drawn by the emphasis of their kinds."""
    weights = [emphasis.get(question.kind, 1.0) for question in sample.questions]
    # Drawing without putting back: the smallest of exponential times.
    drawn = sorted(
        zip(weights, sample.questions, strict=True), key=lambda one: rng.expovariate(one[0])
    )
    chosen = [question for _, question in drawn[:count]]
    asked = [
        Asked(q.text, q.answer, tuple(mask.astype(np.uint8) for mask in q.masks)) for q in chosen
    ]
    labels: dict[str, Mask] = {}
    for thing, mask in zip(sample.scene.objects, sample.object_masks, strict=True):
        for word in (thing.shape, thing.colour, thing.size):
            before = labels.get(word, np.zeros(mask.shape, np.uint8))
            labels[word] = np.maximum(before, mask.astype(np.uint8))
    return Picture(sample.image, tuple(asked), embedding, labels, SCENE_WORDS)
