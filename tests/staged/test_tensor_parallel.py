"""Two ranks choose, answer and segment as one does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from benchmarks.overlap import iou
from tests.staged.engine import OPTIONS, running
from tests.staged.prompts import picture
from vllm_csp.models.lisa import LISAForCausalLM
from vllm_csp.serving.segmenter import Answered, Question, Segmenter

CPUS = sorted(os.sched_getaffinity(0))
POLICIES: list[dict[str, Any]] = [
    # Scores over all heads of the decoder, and over all heads and keys of the vision tower.
    {"policy": "csp", "cluster": "cls", "score": {"row": "mean"}},
    {"policy": "prumerge+", "merge": True},
]


def questions() -> list[Question]:
    """Five pictures, so that several are in one step; one answer is written out."""
    asked = [f"Where is patch {'I' * (number + 1)}?" for number in range(4)]
    forced = [Question(text, picture(number), mode="force") for number, text in enumerate(asked)]
    return [*forced, Question("What is shown?", picture(4), max_tokens=12)]


def watch(model: LISAForCausalLM) -> None:
    """Note the tokens that each stage keeps of each picture; runs in the workers."""
    assert model.runner is not None
    run, seen = model.runner.run, []
    model.seen_sets = seen

    def noting(*args: Any) -> Any:
        output = run(*args)
        assert model.runner is not None
        for place in range(len(model.runner.tracker.current_plan.image_requests)):
            seen.append([stage[place].tolist() for stage in model.runner.selected])
        return output

    model.runner.run = noting  # type: ignore[method-assign]


def seen_sets(model: LISAForCausalLM) -> list[list[list[int]]]:
    """What was noted, in an order that does not depend on how requests fell into steps."""
    return sorted(model.seen_sets)


@pytest.mark.slow
@pytest.mark.skipif(len(CPUS) < 2, reason="needs a CPU core per rank")
@pytest.mark.parametrize("csp", POLICIES, ids=str)
def test_two_ranks_equal_one(
    checkpoint: Path, csp: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(checkpoint, csp) as engine:
        watch(engine.model)
        alone = engine.segmenter.ask(questions())
        expected = seen_sets(engine.model)
        assert len(expected) == 5
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "|".join(map(str, CPUS[:2])))
    monkeypatch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
    segmenter = Segmenter(
        str(checkpoint), additional_config={"csp": csp}, tensor_parallel_size=2, **OPTIONS
    )
    try:
        segmenter.llm.apply_model(watch)
        together = segmenter.ask(questions())
        assert segmenter.llm.apply_model(seen_sets) == [expected, expected]
    finally:
        segmenter.llm.llm_engine.engine_core.shutdown(timeout=20)
    assert_same(together, alone)


def assert_same(answers: list[Answered], expected: list[Answered]) -> None:
    for answer, other in zip(answers, expected, strict=True):
        assert answer.token_ids == other.token_ids
        for mask, reference in zip(answer.masks, other.masks, strict=True):
            assert iou(mask, reference) >= 0.999
    assert sum(len(answer.masks) for answer in answers) == 4
