"""What is asked about a training picture."""

from __future__ import annotations

import random
from collections import Counter

from vllm_csp.scenes import SceneSample, make_sample
from vllm_csp.training.questions import from_scene
from vllm_csp.training.settings import TrainingSettings


def kinds_asked(sample: SceneSample, emphasis: dict[str, float], seed: int) -> list[str]:
    kinds = {question.text: question.kind for question in sample.questions}
    picture = from_scene(sample, 6, emphasis, random.Random(seed), None)
    return [kinds[asked.text] for asked in picture.questions]


def test_kinds_with_emphasis_are_asked_more_often() -> None:
    samples = [make_sample(seed, "train", questions=28) for seed in range(30)]
    plain, heavy = (
        Counter(kind for sample in samples for kind in kinds_asked(sample, emphasis, 0))
        for emphasis in ({}, {"absent": 8.0})
    )
    assert heavy["absent"] > 2 * plain["absent"]
    assert heavy.total() == plain.total()


def test_no_question_is_asked_twice_and_the_draw_is_the_seeds() -> None:
    sample = make_sample(3, "train", questions=28)
    emphasis = TrainingSettings().emphasis
    picture = from_scene(sample, 14, emphasis, random.Random(1), None)
    assert len({asked.text for asked in picture.questions}) == 14
    assert kinds_asked(sample, emphasis, 1) == kinds_asked(sample, emphasis, 1)


def test_the_defaults_emphasise_kinds_that_there_are() -> None:
    from vllm_csp.scenes.kinds import KINDS

    assert set(TrainingSettings().emphasis) <= set(KINDS)
