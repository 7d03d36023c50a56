"""An engine whose SAM sees smaller pictures, with the checkpoint that comes along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from benchmarks.overlap import iou
from tests.models.mini_engine import ask, engine, ious_to_loop, scene_ious
from vllm_csp.images import image_key
from vllm_csp.masks import decode_mask
from vllm_csp.serving.segmenter import Segmenter

SIZE = 512
CAT = Image.fromarray(data.chelsea())
CUP = Image.fromarray(data.coffee())
LEAST_IOU = 0.65


@pytest.fixture(scope="module")
def segmenter() -> Iterator[Segmenter]:
    with engine(sam_image_size=SIZE, embedding_cache_size=1) as one:
        yield one


def test_masks_have_the_photos_size_and_are_mostly_right(segmenter: Segmenter) -> None:
    ious = scene_ious(segmenter)
    assert len(ious) > 20 and np.mean(ious) > LEAST_IOU


def test_masks_are_those_of_the_plain_loop_at_that_size(segmenter: Segmenter) -> None:
    assert min(ious_to_loop(segmenter, sam_image_size=SIZE)) > 0.999


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
