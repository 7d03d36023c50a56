"""In the real engine every mask comes from its own answer's row, whatever the batch did to it.

The truth for a [SEG] at output index i: prompt and the i tokens before it as one prompt, one
prefill, and the mask of its last row.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from vllm import SamplingParams
from vllm.exceptions import VLLMValidationError

from tests.oracle import IMAGE_ROWS, recording
from vllm_csp.images import image_key, to_rgb
from vllm_csp.mask_calls import ImagePixels, MaskJob
from vllm_csp.masks import unpack_mask
from vllm_csp.readout.processor import IMAGE_KEY, REQUEST_KEY
from vllm_csp.readout.request_keys import give_key
from vllm_csp.serving.mask_client import image_pixels
from vllm_csp.serving.segmenter import Question, Segmenter

Mask = npt.NDArray[np.bool_]
SEG, EOS = 32003, 2
SAM_PIXELS = 1024
# Sure | , | it | is | [SEG]: answers full of [SEG], and different ones.
WORDS = [18585, 29892, 372, 338, SEG]
OTHERS = list(range(5000, 9000))


@dataclass(frozen=True)
class Conversation:
    """One request as the engine ran it: the prompt before expansion, one output per choice."""

    key: str
    image: Image.Image
    prompt_ids: list[int]
    outputs: list[list[int]]

    @property
    def image_key(self) -> str:
        return image_key(self.image)

    def job(self, choice: int, indexes: Sequence[int]) -> MaskJob:
        return MaskJob(
            request_key=self.key,
            image_key=self.image_key,
            token_ids=self.outputs[choice],
            indexes=list(indexes),
            of_several=len(self.outputs) > 1,
            wants_tokens=False,
            wants_spans=False,
        )

    def seg_indexes(self, choice: int) -> list[int]:
        return [i for i, token in enumerate(self.outputs[choice]) if token == SEG]


Converse = Callable[..., list[Conversation]]


def sampling(key: str, image: Image.Image, **options: Any) -> SamplingParams:
    return SamplingParams(extra_args={REQUEST_KEY: key, IMAGE_KEY: image_key(image)}, **options)


def conversations(engine: Segmenter, names: Sequence[str], **options: Any) -> list[Conversation]:
    """Ask oracle questions in one batch, with sampling options."""
    chosen = [recording(name) for name in names]
    images = [to_rgb(one.image()) for one in chosen]
    keys = [give_key() for _ in chosen]
    messages: list[Any] = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image_pil", "image_pil": image},
                    {"type": "text", "text": one.question_text},
                ],
            }
        ]
        for one, image in zip(chosen, images, strict=True)
    ]
    parameters = [sampling(key, image, **options) for key, image in zip(keys, images, strict=True)]
    replies = engine.llm.chat(messages, parameters, use_tqdm=False)
    image_token = engine.llm.get_tokenizer().image_token_id
    return [
        Conversation(
            key,
            image,
            _without_repeats(reply.prompt_token_ids or [], image_token),
            [list(output.token_ids) for output in reply.outputs],
        )
        for key, image, reply in zip(keys, images, replies, strict=True)
    ]


@pytest.fixture
def converse(engine_fp32: Segmenter) -> Iterator[Callable[..., list[Conversation]]]:
    """`conversations` with this engine; what they hold goes with the test."""
    keys: list[str] = []

    def ask(*names: str, **options: Any) -> list[Conversation]:
        told = conversations(engine_fp32, names, **options)
        keys.extend(one.key for one in told)
        return told

    yield ask
    replies(engine_fp32, [], released=keys)


def _without_repeats(ids: Sequence[int], image_token: int) -> list[int]:
    short: list[int] = []
    for token, run in groupby(ids):
        short += [token] if token == image_token else list(run)
    return short


def masks(engine: Segmenter, jobs: Sequence[MaskJob], **call: Any) -> list[list[Mask]]:
    """Masks per job; `images` and `released` as the worker takes them."""
    results = replies(engine, jobs, **call)
    return [
        [unpack_mask(bits, tuple(result["size"])) for bits in result["masks"]] for result in results
    ]


def replies(
    engine: Segmenter,
    jobs: Sequence[MaskJob],
    images: Sequence[ImagePixels] = (),
    released: Sequence[str] = (),
) -> list[dict[str, Any]]:
    [reply] = engine.llm.collective_rpc(
        "csp_decode_masks", args=(list(jobs), list(images), list(released))
    )
    return reply["results"]


def expected_masks(
    engine: Segmenter, told: Conversation, choice: int, indexes: Sequence[int]
) -> list[Mask]:
    """The truth, from one prefill per [SEG]."""
    keys = [give_key() for _ in indexes]
    prompts: list[Any] = [
        {
            "prompt_token_ids": [*told.prompt_ids, *told.outputs[choice][:index]],
            "multi_modal_data": {"image": told.image},
        }
        for index in indexes
    ]
    parameters = [sampling(key, told.image, max_tokens=1, temperature=0.0) for key in keys]
    outputs = engine.llm.generate(prompts, parameters, use_tqdm=False)
    jobs = [
        MaskJob(
            request_key=key,
            image_key=told.image_key,
            token_ids=list(output.outputs[0].token_ids),
            indexes=[0],
            of_several=False,
            wants_tokens=False,
            wants_spans=False,
        )
        for key, output in zip(keys, outputs, strict=True)
    ]
    return [found[0] for found in masks(engine, jobs, released=keys)]


def assert_same(ours: Sequence[Mask], expected: Sequence[Mask]) -> None:
    for one, other in zip(ours, expected, strict=True):
        union = (one | other).sum()
        assert (one & other).sum() >= 0.999 * union


def held(engine: Segmenter) -> tuple[int, int]:
    [counts] = engine.llm.collective_rpc("csp_held")
    return counts["streams"], counts["pinned"]


def test_each_of_several_choices_has_the_masks_of_its_own_tokens(
    engine_fp32: Segmenter, converse: Converse
) -> None:
    options = {"n": 6, "temperature": 2.0, "max_tokens": 10}
    [told] = converse("d04-answer", allowed_token_ids=WORDS, **options)
    choices = [choice for choice in range(6) if told.seg_indexes(choice)]
    assert len({tuple(told.outputs[choice]) for choice in choices}) >= 4
    for choice in choices:
        indexes = told.seg_indexes(choice)
        [found] = masks(engine_fp32, [told.job(choice, indexes)])
        assert_same(found, expected_masks(engine_fp32, told, choice, indexes))
    assert held(engine_fp32) == (6, 1)
    replies(engine_fp32, [], released=[told.key])
    assert held(engine_fp32) == (0, 0)


def test_preempted_requests_keep_their_rows(engine_fp32: Segmenter, converse: Converse) -> None:
    """The answers outgrow the KV cache: some are thrown out and computed again."""
    options = {"n": 16, "temperature": 2.0, "max_tokens": 90, "ignore_eos": True}
    [told] = converse("d01-answer", allowed_token_ids=WORDS, **options)
    cache = engine_fp32.llm.llm_engine.vllm_config.cache_config
    prompt = len(told.prompt_ids) - 1 + IMAGE_ROWS
    shared = prompt // cache.block_size
    own = [-(-length // cache.block_size) - shared for length in (prompt, prompt + 90)]
    assert shared + 16 * own[0] < cache.num_gpu_blocks < shared + 16 * own[1]
    for choice in range(16):
        assert len(told.outputs[choice]) == 90
        indexes = told.seg_indexes(choice)
        chosen = [indexes[0], indexes[-1]]
        [found] = masks(engine_fp32, [told.job(choice, chosen)])
        assert_same(found, expected_masks(engine_fp32, told, choice, chosen))
    replies(engine_fp32, [], released=[told.key])
    assert held(engine_fp32) == (0, 0)


def test_prompts_split_between_steps_are_read_out_at_their_end(
    engine_fp32: Segmenter, converse: Converse
) -> None:
    """So many prompts do not fit one step, though all but the first find most of theirs cached."""
    # Words that the model was not trained on: every choice begins with another.
    options = {"n": 16, "temperature": 2.0, "max_tokens": 2, "allowed_token_ids": OTHERS}
    [told] = converse("d01-answer", **options)
    assert len({output[0] for output in told.outputs}) >= 12
    config = engine_fp32.llm.llm_engine.vllm_config
    uncached = (len(told.prompt_ids) - 1 + IMAGE_ROWS) % config.cache_config.block_size
    step = config.scheduler_config.max_num_batched_tokens
    assert 16 * uncached > step and step % uncached
    for choice in range(16):
        [found] = masks(engine_fp32, [told.job(choice, [1])])
        assert_same(found, expected_masks(engine_fp32, told, choice, [1]))


def test_masks_can_be_asked_for_while_other_answers_are_held(
    engine_fp32: Segmenter, converse: Converse
) -> None:
    told = converse("d01-answer", "d02-answer", temperature=0.0, max_tokens=16)
    jobs = [one.job(0, one.seg_indexes(0)) for one in told]
    together = masks(engine_fp32, jobs)
    alone = [masks(engine_fp32, [job], released=[job["request_key"]])[0] for job in jobs]
    for both, one in zip(together, alone, strict=True):
        assert_same(both, one)
    assert held(engine_fp32) == (0, 0)


def test_a_released_request_has_no_masks(engine_fp32: Segmenter, converse: Converse) -> None:
    [told] = converse("d01-answer", temperature=0.0, max_tokens=16)
    job = told.job(0, told.seg_indexes(0))
    [first] = replies(engine_fp32, [job], released=[told.key])
    [second] = replies(engine_fp32, [job])
    assert "masks" in first
    assert second == {"missing": "request"}


def test_an_image_that_is_no_longer_held_is_asked_for_and_taken_again(
    engine_fp32: Segmenter, converse: Converse
) -> None:
    [told] = converse("d01-answer", temperature=0.0, max_tokens=16)
    job = told.job(0, told.seg_indexes(0))
    [expected] = masks(engine_fp32, [job])
    gone = MaskJob(**{**job, "image_key": uuid.uuid4().hex})
    assert replies(engine_fp32, [gone]) == [{"missing": "image"}]
    image = image_pixels(gone["image_key"], told.image, SAM_PIXELS)
    [found] = masks(engine_fp32, [gone], images=[image], released=[told.key])
    assert_same(found, expected)
    assert held(engine_fp32) == (0, 0)


def test_an_image_that_cannot_be_embedded_takes_no_other_answer_along(
    engine_fp32: Segmenter, converse: Converse
) -> None:
    [told] = converse("d01-answer", temperature=0.0, max_tokens=16)
    job = told.job(0, told.seg_indexes(0))
    others = [MaskJob(**{**job, "image_key": name}) for name in ("too large", "small")]
    images = [image_pixels(one["image_key"], told.image, SAM_PIXELS) for one in others]
    engine_fp32.llm.apply_model(refuse_too_large)
    try:
        found = replies(engine_fp32, [job, *others], images, released=[told.key])
    finally:
        engine_fp32.llm.apply_model(take_all_again)
    assert found[1] == {"failed": "OutOfMemoryError"}
    assert found[0]["masks"] == found[2]["masks"] != []


def refuse_too_large(model: Any) -> None:
    encode = model.masks.encode

    def refuse(keys: Sequence[str], **rest: Any) -> None:
        if "too large" in keys:
            raise torch.OutOfMemoryError("no room for it")
        encode(keys=keys, **rest)

    model.masks.encode = refuse


def take_all_again(model: Any) -> None:
    del model.masks.encode


def test_a_refused_question_loses_no_image(engine_fp32: Segmenter) -> None:
    """It was rendered when it was refused, so that its image counts as sent."""
    image = Image.effect_noise((80, 60), 90).convert("RGB")
    with pytest.raises(VLLMValidationError, match="Schedule"):
        engine_fp32.ask([Question("Where?", image, mode="force", schedule="[]")])
    assert held(engine_fp32) == (0, 0)
    [answer] = engine_fp32.ask([Question("Where?", image, mode="force")])
    assert len(answer.masks) == 1
    assert held(engine_fp32) == (0, 0)


@pytest.mark.parametrize("limit", [1, 2])
def test_a_seg_that_ends_the_answer_needs_no_further_step(
    engine_fp32: Segmenter, converse: Converse, limit: int
) -> None:
    """The row that predicted it is there, though [SEG] itself was never fed."""
    options = {"temperature": 0.0, "max_tokens": limit, "allowed_token_ids": [SEG]}
    [told] = converse("d01-answer", **options)
    assert told.outputs == [[SEG] * limit]
    [found] = masks(engine_fp32, [told.job(0, [limit - 1])], released=[told.key])
    assert_same(found, expected_masks(engine_fp32, told, 0, [limit - 1]))
