"""The baselines of the benchmarks compute what LISA recorded: on these masks speed is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.baselines import Baseline, HuggingFace, ReferenceLoop, as_json
from tests.oracle import Recording, recording
from tests.overlap import iou
from vllm_csp.mini import MINI
from vllm_csp.scenes import make_sample

# fp32: rounding of other kernels, as between the engine and the recordings.
LEAST_IOU = 0.999


def asked(*names: str) -> list[Recording]:
    return [recording(name) for name in names]


def check(replies: list, recordings: list[Recording]) -> None:
    for reply, one in zip(replies, recordings, strict=True):
        expected = one.masks("fp32")
        if one.generated:
            assert reply.token_ids == one.generated_ids("fp32")
        assert len(reply.masks) == len(expected)
        for mask, reference in zip(as_json(reply.masks), expected, strict=True):
            assert iou(mask, reference) >= LEAST_IOU


def questions(recordings: list[Recording]) -> list:
    return [(one.question_text, one.image()) for one in recordings]


@pytest.mark.parametrize("baseline", [ReferenceLoop, HuggingFace])
def test_a_generated_answer_is_the_recorded_one(oracle: Path, baseline: type[Baseline]) -> None:
    recordings = asked("d01-answer", "d02-answer")
    limit = max(one.numbers["max_new_tokens"] for one in recordings)
    replies = baseline(oracle / "checkpoint", "float32").ask(questions(recordings), limit)
    check(replies, recordings)


@pytest.mark.parametrize("baseline", [ReferenceLoop, HuggingFace])
def test_a_forced_mask_is_the_recorded_one(oracle: Path, baseline: type[Baseline]) -> None:
    recordings = asked("dg1-forced0", "dg1-forced2")
    replies = baseline(oracle / "checkpoint", "float32").ask(questions(recordings), 1, force=True)
    check(replies, recordings)


def test_the_checkpoint_that_comes_along_is_read() -> None:
    """Its words are tied, its SAM is MobileSAM's."""
    sample = make_sample(2000, "test")
    wanted = [(question.text, sample.image) for question in sample.questions[:3]]
    loop, batch = (kind(MINI, "float32").ask(wanted, 16) for kind in (ReferenceLoop, HuggingFace))
    for one, other, question in zip(loop, batch, sample.questions, strict=False):
        assert one.token_ids == other.token_ids
        masks = zip(as_json(one.masks), as_json(other.masks), strict=True)
        assert all(iou(mask, again) >= LEAST_IOU for mask, again in masks)
        assert len(one.masks) == len(question.masks)
