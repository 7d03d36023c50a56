"""An engine whose SAM sees smaller pictures, with the checkpoint that comes along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from benchmarks.baselines import ReferenceLoop, as_json
from tests.overlap import iou
from vllm_csp.images import image_key
from vllm_csp.masks import decode_mask, encode_mask
from vllm_csp.mini import MINI
from vllm_csp.scenes import make_sample
from vllm_csp.serving.segmenter import Question, Segmenter

SIZE = 512
CAT = Image.fromarray(data.chelsea())
CUP = Image.fromarray(data.coffee())
LEAST_IOU = 0.65


@pytest.fixture(scope="module")
def segmenter() -> Iterator[Segmenter]:
    with pytest.MonkeyPatch.context() as patch:
        # Both ends of the engine's socket must read it, for as long as they talk.
        patch.setenv("VLLM_ALLOW_INSECURE_SERIALIZATION", "1")
        segmenter = Segmenter(
            str(MINI),
            enforce_eager=True,
            max_model_len=1024,
            kv_cache_memory_bytes=1 << 26,
            dtype="float32",
            additional_config={"csp": {"sam_image_size": SIZE, "embedding_cache_size": 1}},
        )
        yield segmenter
        segmenter.close()


def ask(segmenter: Segmenter, image: Image.Image, *questions: str) -> list[list[dict[str, Any]]]:
    asked = [Question(text, image, mode="force") for text in questions]
    return [answer.masks for answer in segmenter.ask(asked)]


def test_masks_have_the_photos_size_and_are_mostly_right(segmenter: Segmenter) -> None:
    ious = []
    for seed in range(1000, 1006):
        sample = make_sample(seed, "test")
        questions = [one for one in sample.questions if len(one.masks) == 1]
        answers = ask(segmenter, sample.image, *(one.text for one in questions))
        for question, [mask] in zip(questions, answers, strict=True):
            assert mask["size"] == [sample.image.height, sample.image.width]
            ious.append(iou(mask, encode_mask(question.masks[0], 1.0, 0, "rle")))
    assert len(ious) > 20 and np.mean(ious) > LEAST_IOU


def test_masks_are_those_of_the_plain_loop_at_that_size(segmenter: Segmenter) -> None:
    sample = make_sample(2000, "test")
    wanted = [(one.text, sample.image) for one in sample.questions[:4]]
    loop = ReferenceLoop(MINI, "float32", sam_image_size=SIZE).ask(wanted, 1, force=True)
    answers = ask(segmenter, sample.image, *(text for text, _ in wanted))
    for reply, masks in zip(loop, answers, strict=True):
        pairs = list(zip(as_json(reply.masks), masks, strict=True))
        assert len(pairs) == 1 and all(iou(*pair) > 0.999 for pair in pairs)


def test_the_worker_holds_what_the_smaller_picture_gives(segmenter: Segmenter) -> None:
    ask(segmenter, CAT, "Where is the cat?")
    [sizes] = segmenter.llm.apply_model(held)
    assert sizes == [SIZE, 256, SIZE // 16, SIZE // 16]


def held(model: Any) -> list[int]:
    """In the worker: the size of its pictures, and of what the cache has of the cat's."""
    embedding = model.masks.embeddings.peek(image_key(CAT)).embedding
    return [model.visual_model.image_size, *embedding.shape]


def test_a_photo_that_is_sent_again_is_as_small(segmenter: Segmenter) -> None:
    """Its embedding is gone, its rows are not, so the masks' way to the worker brings pixels."""
    question = "Can you segment the cat in this image?"
    [[first]] = ask(segmenter, CAT, question)
    ask(segmenter, CUP, "Where is the cup?")
    [[again]] = ask(segmenter, CAT, question)
    assert decode_mask(first).any()
    assert iou(first, again) > 0.999
