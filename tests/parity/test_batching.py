"""Many questions at once, with warm caches, give what each gives alone."""

from __future__ import annotations

import pytest

from benchmarks.overlap import iou
from tests.oracle import recordings
from tests.parity.conftest import Run
from vllm_csp.serving.segmenter import Question


@pytest.fixture
def batch(run_fp32: Run) -> list[Question]:
    """Every oracle question twice, and as many without an image."""
    questions = [one.question() for one in recordings()]
    texts = [Question("What is shown in this image?", max_tokens=8) for _ in questions]
    return [*questions, *texts, *questions[::-1]]


def test_a_mixed_batch_gives_the_answers_of_one_at_a_time(
    run_fp32: Run, batch: list[Question]
) -> None:
    """More questions than fit the KV cache, generated and forced, with and without an image."""
    alone = [run_fp32.answer(one) for one in recordings()]
    answers = run_fp32.engine.ask(batch)
    first, texts, last = (answers[i : i + len(alone)] for i in range(0, len(batch), len(alone)))
    for answer, expected in zip([*first, *last[::-1]], [*alone, *alone], strict=True):
        assert (answer.text, answer.token_ids) == (expected.text, expected.token_ids)
        assert len(answer.masks) == len(expected.masks)
        for mask, reference in zip(answer.masks, expected.masks, strict=True):
            assert iou(mask, reference) >= 0.999
    assert {(answer.text, len(answer.masks)) for answer in texts} == {(texts[0].text, 0)}


def test_nothing_is_held_and_no_image_encoded_twice(run_fp32: Run, batch: list[Question]) -> None:
    [before] = run_fp32.engine.llm.collective_rpc("csp_held")
    run_fp32.engine.ask(batch)
    [held] = run_fp32.engine.llm.collective_rpc("csp_held")
    assert (held["streams"], held["pinned"]) == (0, 0)
    assert held["embeddings"] == before["embeddings"]
    assert held["embedding_misses"] == before["embedding_misses"]
