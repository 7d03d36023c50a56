"""Every question has one answer, the words alone lead to it, and its masks are that answer's."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tests.scenes.solver import solve
from vllm_csp.scenes import KINDS, SceneQuestion, SceneSample, Split, make_sample

SCENES = 300


@pytest.fixture(scope="module")
def samples() -> dict[Split, list[SceneSample]]:
    splits: tuple[Split, ...] = ("train", "val", "test")
    return {split: [make_sample(s, split, size=224) for s in range(SCENES)] for split in splits}


def everything(samples: dict[Split, list[SceneSample]]) -> list[tuple[SceneSample, SceneQuestion]]:
    return [(s, question) for split in samples.values() for s in split for question in s.questions]


def test_reading_the_question_leads_to_its_masks(
    samples: dict[Split, list[SceneSample]],
) -> None:
    for sample, question in everything(samples):
        found = solve(sample, question.text)
        unions = [np.any([sample.object_masks[i] for i in group], axis=0) for group in found]
        assert len(unions) == len(question.masks), question.text
        for union, mask in zip(unions, question.masks, strict=True):
            assert np.array_equal(union, mask), question.text


def test_answers_have_lisas_form_and_a_seg_per_mask(
    samples: dict[Split, list[SceneSample]],
) -> None:
    for _, question in everything(samples):
        assert question.answer.count("[SEG]") == len(question.masks)
        assert question.answer in {
            "It is [SEG].",
            "They are [SEG] and [SEG].",
            "It is not in this image.",
        }
        assert (question.answer == "It is not in this image.") == (question.kind == "absent")


def test_kinds_are_asked_about_equally_often(samples: dict[Split, list[SceneSample]]) -> None:
    for split in samples.values():
        counts = Counter(question.kind for sample in split for question in sample.questions)
        total = sum(counts.values())
        assert total == 8 * SCENES
        assert set(counts) == set(KINDS)
        assert all(0.04 < count / total < 0.11 for count in counts.values()), counts
        assert 0.065 < counts["absent"] / total < 0.10


def test_a_scene_is_asked_no_question_twice(samples: dict[Split, list[SceneSample]]) -> None:
    for split in samples.values():
        for sample in split:
            assert len({question.text for question in sample.questions}) == len(sample.questions)
