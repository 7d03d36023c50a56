"""One training or test sample: a picture and questions about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from random import Random

import numpy as np
import numpy.typing as npt
from PIL import Image

from vllm_csp.scenes.backgrounds import DRAWN, PHOTO, draw_background
from vllm_csp.scenes.kinds import FINDERS
from vllm_csp.scenes.layout import draw_scene
from vllm_csp.scenes.meanings import Meaning
from vllm_csp.scenes.painter import Mask, paint
from vllm_csp.scenes.phrases import (
    ANSWERS,
    FORMS,
    NOUNS,
    PLURAL_REQUESTS,
    SENTENCE_REQUESTS,
    SINGULAR_REQUESTS,
    SPELLINGS,
)
from vllm_csp.scenes.scene import SPLITS, Scene, Split
from vllm_csp.scenes.splits import question_split

QUESTIONS = 8
WORDINGS = 16  # tried per meaning until one belongs to the split
MEANINGS = 12  # tried per kind


@dataclass(frozen=True)
class SceneQuestion:
    """A question about a scene, its answer and a mask for each `[SEG]` in the answer.

    `masks` are the visible pixels, bool [height, width], read-only; none when what is asked for is
    not there.
    """

    kind: str
    text: str
    answer: str
    masks: tuple[npt.NDArray[np.bool_], ...]


@dataclass(frozen=True)
class SceneSample:
    """A square RGB picture, questions about it, what it shows, and each object's visible pixels."""

    image: Image.Image
    questions: tuple[SceneQuestion, ...]
    scene: Scene
    object_masks: tuple[npt.NDArray[np.bool_], ...]


def make_sample(
    seed: int,
    split: Split,
    *,
    size: int = 448,
    backgrounds: Sequence[Path] = (),
    questions: int = QUESTIONS,
) -> SceneSample:
    """The sample of this seed: always the same one for the same arguments.

    `size` is the image's side in pixels. With `backgrounds` (photos) half of the scenes have one of
    them behind the objects; hand different photos to different splits. `questions`: how many are
    asked at most.
    Raises ValueError for an unknown split, a negative seed or a side under 64.
    """
    if split not in SPLITS or seed < 0 or size < 64:
        raise ValueError(
            f"no scene of split {split!r}, seed {seed}, size {size}: split is one of "
            f"{', '.join(SPLITS)}, seed is not negative, size is at least 64"
        )
    kinds = DRAWN + (PHOTO,) * (len(DRAWN) if backgrounds else 0)
    scene = draw_scene(Random(f"scene/{split}/{seed}"), split, kinds)
    image = draw_background(
        Random(f"background/{split}/{seed}"), scene.background, size, scene.objects, backgrounds
    )
    masks = paint(scene, image)
    asked = _draw_questions(Random(f"questions/{split}/{seed}"), scene, split, masks, questions)
    return SceneSample(image, asked, scene, masks)


def _draw_questions(
    random: Random, scene: Scene, split: Split, masks: Sequence[Mask], most: int
) -> tuple[SceneQuestion, ...]:
    """Up to so many questions, of different kinds as far as the scene has them."""
    order = sorted(FINDERS, key=lambda kind: random.expovariate(FINDERS[kind][1]))
    questions: dict[str, SceneQuestion] = {}
    spare: list[SceneQuestion] = []
    for kind in order:
        found = _ask(random, scene, split, kind, masks)
        for question in found[:1]:
            questions.setdefault(question.text, question)
        spare += found[1:]
        if len(questions) == most:
            break
    for question in spare[: most - len(questions)]:
        questions.setdefault(question.text, question)
    return tuple(questions.values())


def _ask(
    random: Random, scene: Scene, split: Split, kind: str, masks: Sequence[Mask]
) -> list[SceneQuestion]:
    """Up to two questions of a kind, worded as belongs to the split."""
    meanings = list(FINDERS[kind][0](scene))
    random.shuffle(meanings)
    forms = {form: random.random() for form in sorted({m.form for m in meanings})}
    meanings.sort(key=lambda meaning: forms[meaning.form])
    questions: list[SceneQuestion] = []
    for meaning in meanings[:MEANINGS]:
        text = _word(random, meaning, split)
        if text:
            targets = tuple(_union(masks, target) for target in meaning.targets)
            questions.append(SceneQuestion(kind, text, ANSWERS[len(targets)], targets))
        if len(questions) == 2:
            break
    return questions


def _word(random: Random, meaning: Meaning, split: Split) -> str | None:
    """A wording of this split, or None if none was found."""
    form = FORMS[meaning.form]
    ways = [
        (form.singular, SINGULAR_REQUESTS),
        (form.plural, PLURAL_REQUESTS),
        (form.sentences, SENTENCE_REQUESTS),
    ]
    for _ in range(WORDINGS):
        templates, requests = random.choice([way for way in ways if way[0]])
        phrase = _fill(random, random.choice(templates), meaning)
        text = random.choice(requests).format(phrase)
        if question_split(phrase, text) == split:
            return text
    return None


def _fill(random: Random, template: str, meaning: Meaning) -> str:
    words = {"n": random.choice(NOUNS), "colour": random.choice(SPELLINGS)}
    for slot, options in meaning.slots.items():
        words[slot] = random.choice(options).format(**words)
    return template.format(**words)


def _union(masks: Sequence[Mask], indices: Sequence[int]) -> Mask:
    if len(indices) == 1:
        return masks[indices[0]]
    union = reduce(or_, (masks[index] for index in indices))
    union.flags.writeable = False
    return union
