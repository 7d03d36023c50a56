"""Splits share no scene and no combination of template and attributes, but all words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations

import pytest

from tests.scenes.solver import COLOURS, SHAPES
from vllm_csp.scenes import SceneSample, Split, make_sample

SCENES = {"train": 1200, "val": 300, "test": 300}
ATTRIBUTES = {*COLOURS, *SHAPES, *(f"{shape}s" for shape in SHAPES), "crosses", "striped", "solid"}


@pytest.fixture(scope="module")
def samples() -> dict[Split, list[SceneSample]]:
    splits: tuple[Split, ...] = ("train", "val", "test")
    return {s: [make_sample(n, s, size=64) for n in range(SCENES[s])] for s in splits}


def disjoint(groups: Iterable[set[str]]) -> bool:
    return all(one.isdisjoint(other) for one, other in combinations(groups, 2))


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def phrase(text: str) -> str:
    """A question without its request."""
    question = re.sub(" Please (output|respond with) segmentation mask.$", "", text)
    start = "^(Can you segment|Can you find|Please segment|(What|Where) (is|are)) (?=the|all|every)"
    return re.sub("( in this image)?[.?]$", "", re.sub(start, "", question))


def test_no_scene_is_in_two_splits(samples: dict[Split, list[SceneSample]]) -> None:
    assert disjoint({sample.scene.signature for sample in split} for split in samples.values())


def test_no_question_is_in_two_splits(samples: dict[Split, list[SceneSample]]) -> None:
    assert disjoint({q.text for sample in s for q in sample.questions} for s in samples.values())


def test_a_phrase_of_two_attributes_is_in_one_split_whatever_is_around_it(
    samples: dict[Split, list[SceneSample]],
) -> None:
    def phrases(split: list[SceneSample]) -> set[str]:
        found = {phrase(question.text) for sample in split for question in sample.questions}
        return {text for text in found if sum(word in ATTRIBUTES for word in words(text)) >= 2}

    groups = [phrases(split) for split in samples.values()]
    assert min(map(len, groups)) > 100
    assert disjoint(groups)


def test_held_out_questions_use_words_of_training(
    samples: dict[Split, list[SceneSample]],
) -> None:
    texts = {
        split: {w for sample in found for q in sample.questions for w in words(q.text)}
        for split, found in samples.items()
    }
    assert texts["val"] | texts["test"] <= texts["train"]
    assert len(texts["train"]) < 300
