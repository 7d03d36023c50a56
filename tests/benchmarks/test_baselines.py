"""The baselines of the benchmarks compute what LISA recorded: on these masks speed is compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.baselines import Baseline, HuggingFace, ReferenceLoop, as_json
from benchmarks.calls import calls, opened
from benchmarks.checkpoint import Size, write_checkpoint
from benchmarks.dtype_options import usual_dtypes
from benchmarks.overlap import iou
from tests.oracle import Recording, recording
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


def test_a_random_checkpoint_answers_as_lisa_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else `generate` would be measured on answers without end and without masks."""
    monkeypatch.setattr("benchmarks.checkpoint.CACHE", tmp_path)
    for size in (Size(2, 128), Size(16, 256)):
        for dtype in usual_dtypes():
            baseline = HuggingFace(write_checkpoint(size), dtype)
            replies = baseline.ask(opened(calls(2, 1, 0)), size.answer_tokens + 3)
            assert {len(reply.token_ids) for reply in replies} == {7}
            texts = [baseline.tokenizer.decode(reply.token_ids) for reply in replies]
            assert texts == ["Sure, it is [SEG] . </s>"] * 2
            assert [len(reply.masks) for reply in replies] == [1, 1]


def test_its_answer_is_as_long_as_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.checkpoint.CACHE", tmp_path)
    baseline = HuggingFace(write_checkpoint(Size(2, 128, answer_tokens=40)), "float32")
    [reply] = baseline.ask(opened(calls(1, 1, 0)), 100)
    assert (len(reply.token_ids), len(reply.masks)) == (40, 1)
