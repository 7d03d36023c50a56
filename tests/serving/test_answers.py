"""Answers over HTTP: LISA's texts and masks, in both formats, generated and forced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.overlap import iou
from tests.chat import body, question_body, user
from tests.oracle import Recording, each_recording, recording
from tests.pictures import data_url, encoded
from tests.server import Server
from vllm_csp.masks import decode_mask

SEG = 32003
FIELDS = {"size", "bbox", "area", "score", "seg_index"}


def answered(server: Server, request: dict[str, Any]) -> dict[str, Any]:
    reply = server.chat(request)
    assert reply.status_code == 200, reply.text
    return reply.json()


def message(server: Server, request: dict[str, Any]) -> dict[str, Any]:
    [choice] = answered(server, request)["choices"]
    return choice["message"]


@each_recording()
def test_text_and_masks_are_lisas(server: Server, recording: Recording) -> None:
    found = message(server, question_body(recording))
    assert found["role"] == "assistant"
    assert " ".join(found["content"].split()) == recording.text("fp32")
    assert not found["content"].startswith(" ")
    expected = recording.masks("fp32")
    assert [mask["seg_index"] for mask in found["masks"]] == list(range(len(expected)))
    for mask, reference in zip(found["masks"], expected, strict=True):
        assert iou(mask, reference) >= 0.999


@each_recording(lambda one: one.case["id"] in ("d01", "d04", "d06"))
def test_png_holds_the_same_mask_as_rle(server: Server, recording: Recording) -> None:
    as_rle = message(server, question_body(recording))["masks"]
    request = question_body(recording, segmentation={"mask_format": "png"})
    as_png = message(server, request)["masks"]
    for one, other in zip(as_rle, as_png, strict=True):
        assert set(one) == FIELDS | {"counts"}
        assert set(other) == FIELDS | {"png"}
        assert {name: one[name] for name in FIELDS} == {name: other[name] for name in FIELDS}
        assert np.array_equal(decode_mask(one), decode_mask(other))


@each_recording(lambda one: bool(one.masks("fp32")))
def test_size_box_area_and_score_describe_the_mask(server: Server, recording: Recording) -> None:
    image = recording.image()
    for mask in message(server, question_body(recording))["masks"]:
        pixels = decode_mask(mask)
        assert mask["size"] == [image.height, image.width] == list(pixels.shape)
        rows, columns = np.nonzero(pixels)
        left, top = columns.min(), rows.min()
        width, height = columns.max() - left + 1, rows.max() - top + 1
        assert mask["bbox"] == [left, top, width, height]
        assert mask["area"] == pixels.sum()
        assert 0.5 < mask["score"] <= 1.0


def test_force_is_one_prefill(server: Server) -> None:
    reply = answered(server, question_body(recording("d01-forced0")))
    assert reply["usage"]["completion_tokens"] == 1
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["choices"][0]["message"]["content"] == "[SEG]."


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 100},
        {"min_tokens": 50, "ignore_eos": True},
        {"temperature": 1.5},
        {"stop": ["Sure"]},
        {"stop_token_ids": [18585]},
        {"logit_bias": {"29892": 100}},
    ],
    ids=str,
)
def test_force_does_not_depend_on_sampling(server: Server, options: dict[str, Any]) -> None:
    one = recording("d01-forced0")
    request = question_body(one)
    del request["max_completion_tokens"]
    [mask] = message(server, {**request, **options})["masks"]
    assert iou(mask, one.masks("fp32")[0]) >= 0.999


def test_an_answer_without_seg_has_no_masks(server: Server) -> None:
    found = message(server, question_body(recording("d05-answer")))
    assert found["masks"] == []
    assert "[SEG]" not in found["content"]


def test_a_text_only_chat_works(server: Server) -> None:
    reply = answered(server, body(user("Hello"), max_tokens=8))
    [choice] = reply["choices"]
    assert choice["message"]["content"]
    assert choice["message"]["masks"] == []
    assert reply["usage"]["prompt_tokens"] < 100


def test_an_image_without_segmentation_options_is_segmented(server: Server) -> None:
    one = recording("d02-answer")
    request = question_body(one)
    assert "segmentation" not in request
    [mask] = message(server, request)["masks"]
    assert iou(mask, one.masks("fp32")[0]) >= 0.999


def test_the_image_may_follow_the_text(server: Server) -> None:
    """LISA knows one place for it."""
    one = recording("d02-answer")
    request = question_body(one)
    request["messages"][0]["content"].reverse()
    [mask] = message(server, request)["masks"]
    assert iou(mask, one.masks("fp32")[0]) >= 0.999


def test_statistics_come_when_asked_for(server: Server) -> None:
    one = recording("d01-forced0")
    plain = answered(server, question_body(one))
    assert plain.get("segmentation") is None
    told = answered(server, question_body(one, segmentation={"stats": True}))["segmentation"]
    assert (told["policy"], told["visual_tokens"]) == ("dense", 256)


def test_stopping_at_seg_still_gives_its_mask(server: Server) -> None:
    one = recording("d01-answer")
    [mask] = message(server, question_body(one, stop_token_ids=[SEG]))["masks"]
    assert iou(mask, one.masks("fp32")[0]) >= 0.999


def test_one_picture_in_other_files_is_one_image(server: Server) -> None:
    """The embedding is kept by pixels, not by bytes or by what the client calls it."""
    one = recording("d01-answer")
    answered(server, question_body(one))
    before = server.held()
    request = question_body(one)
    picture = request["messages"][0]["content"][0]
    picture["image_url"]["url"] = data_url(encoded(one.image().convert("RGB"), "BMP"), "bmp")
    picture["uuid"] = "a-name-of-the-client"
    [mask] = message(server, request)["masks"]
    assert iou(mask, one.masks("fp32")[0]) >= 0.999
    after = server.held()
    assert after["embeddings"] == before["embeddings"]
    assert after["embedding_misses"] == before["embedding_misses"]


def test_clients_names_for_images_do_not_mix_them_up(server: Server) -> None:
    """Two pictures under one `uuid`."""
    for name in ("d01-answer", "d02-answer"):
        one = recording(name)
        request = question_body(one)
        request["messages"][0]["content"][0]["uuid"] = "the-same-name"
        [mask] = message(server, request)["masks"]
        assert iou(mask, one.masks("fp32")[0]) >= 0.999


def test_a_mirrored_picture_is_another_image(server: Server) -> None:
    one = recording("d02-answer")
    mirrored = one.image().transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    request = question_body(one)
    request["messages"][0]["content"][0]["image_url"]["url"] = data_url(encoded(mirrored))
    [mask] = message(server, {**request, "segmentation": {"mode": "force"}})["masks"]
    assert iou(mask, one.masks("fp32")[0]) < 0.9
