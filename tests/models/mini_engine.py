"""LISA-mini in an engine with settings of its SAM, and how good its masks are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image

from benchmarks.baselines import ReferenceLoop, as_json
from benchmarks.overlap import iou
from tests.in_process import in_process
from vllm_csp.masks import encode_mask
from vllm_csp.mini import MINI
from vllm_csp.scenes import SceneSample, make_sample
from vllm_csp.serving.segmenter import Question, Segmenter

SCENES = range(1000, 1006)
COMPARED = 2000


@contextmanager
def engine(**settings: Any) -> Iterator[Segmenter]:
    """An engine in fp32 with these settings, into whose worker one may look (`apply_model`)."""
    with in_process(
        str(MINI),
        enforce_eager=True,
        max_model_len=1024,
        kv_cache_memory_bytes=1 << 26,
        dtype="float32",
        additional_config={"csp": settings},
    ) as segmenter:
        yield segmenter


def ask(segmenter: Segmenter, image: Image.Image, *questions: str) -> list[list[dict[str, Any]]]:
    """Masks of each question."""
    asked = [Question(text, image, mode="force") for text in questions]
    return [answer.masks for answer in segmenter.ask(asked)]


def scene_ious(segmenter: Segmenter) -> list[float]:
    """With what is right, of the questions about a few held-out scenes that have one mask."""
    return [one for seed in SCENES for one in _ious(segmenter, make_sample(seed, "test"))]


def ious_to_loop(segmenter: Segmenter, **settings: Any) -> list[float]:
    """With the plain loop's masks in fp32 under settings of `ReferenceLoop`; four questions."""
    sample = make_sample(COMPARED, "test")
    wanted = [(one.text, sample.image) for one in sample.questions[:4]]
    loop = ReferenceLoop(MINI, "float32", **settings).ask(wanted, 1, force=True)
    answers = ask(segmenter, sample.image, *(text for text, _ in wanted))
    return [
        iou(*pair)
        for reply, masks in zip(loop, answers, strict=True)
        for pair in zip(_only(as_json(reply.masks)), _only(masks), strict=True)
    ]


def _ious(segmenter: Segmenter, sample: SceneSample) -> Iterator[float]:
    questions = [one for one in sample.questions if len(one.masks) == 1]
    answers = ask(segmenter, sample.image, *(one.text for one in questions))
    for question, masks in zip(questions, answers, strict=True):
        [mask] = masks
        assert mask["size"] == [sample.image.height, sample.image.width]
        yield iou(mask, encode_mask(question.masks[0], 1.0, 0, "rle"))


def _only(masks: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    assert len(masks) == 1
    return masks
