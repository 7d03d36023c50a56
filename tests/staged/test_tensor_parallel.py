"""Two ranks choose, answer and segment as one does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.overlap import iou
from tests.staged.engine import OPTIONS, running
from tests.staged.prompts import picture
from vllm_csp.models.lisa import LISAForCausalLM
from vllm_csp.serving.segmenter import Answered, Question, Segmenter

CPUS = sorted(os.sched_getaffinity(0))
POLICIES: list[dict[str, Any]] = [
    # Scores over all heads of the decoder, and over all heads and keys of the vision tower.
    {"policy": "csp", "cluster": "cls"},
    {"policy": "prumerge+", "merge": True},
]


def questions() -> list[Question]:
    """Three pictures in one step, one answer written out."""
    return [
        Question("Where is the red patch?", picture(0), mode="force"),
        Question("Which patch is the darkest of them all?", picture(1), mode="force"),
        Question("What is shown?", picture(2), max_tokens=12),
    ]


def selected(model: LISAForCausalLM) -> list[list[list[int]]]:
    """Image tokens of each stage, for the last step with pictures; runs in the workers."""
    assert model.runner is not None
    return [stage.tolist() for stage in model.runner.selected]


@pytest.mark.slow
@pytest.mark.skipif(len(CPUS) < 2, reason="needs a CPU core per rank")
@pytest.mark.parametrize("csp", POLICIES, ids=str)
def test_two_ranks_equal_one(
    checkpoint: Path, csp: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(checkpoint, csp) as engine:
        alone = engine.segmenter.ask(questions())
        expected = selected(engine.model)
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "|".join(map(str, CPUS[:2])))
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
    segmenter = Segmenter(
        str(checkpoint), additional_config={"csp": csp}, tensor_parallel_size=2, **OPTIONS
    )
    try:
        together = segmenter.ask(questions())
        assert segmenter.llm.apply_model(selected) == [expected, expected]
    finally:
        segmenter.llm.llm_engine.engine_core.shutdown(timeout=20)
    assert_same(together, alone)


def assert_same(answers: list[Answered], expected: list[Answered]) -> None:
    for answer, other in zip(answers, expected, strict=True):
        assert answer.token_ids == other.token_ids
        for mask, reference in zip(answer.masks, other.masks, strict=True):
            assert iou(mask, reference) >= 0.999
    assert sum(len(answer.masks) for answer in answers) == 2
