"""Several answers to one request, and several masks in one answer."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.overlap import iou
from tests.chat import question_body
from tests.oracle import recording
from tests.server import Server

SEG = 32003
# Sure | , | it | is | [SEG]
WORDS = [18585, 29892, 372, 338, SEG]
MOST_MASKS = 32


def choices(server: Server, request: dict[str, Any]) -> list[dict[str, Any]]:
    reply = server.chat(request)
    assert reply.status_code == 200, reply.text
    return sorted(reply.json()["choices"], key=lambda choice: choice["index"])


def limited(name: str, tokens: list[int], max_tokens: int, **fields: Any) -> dict[str, Any]:
    """A request whose answer can only consist of some tokens."""
    request = question_body(recording(name), allowed_token_ids=tokens, **fields)
    return {**request, "max_completion_tokens": max_tokens, "return_token_ids": True}


def test_every_choice_has_masks(server: Server) -> None:
    one = recording("d04-answer")
    # vLLM takes n > 1 only with sampling; the model is sure enough of these words.
    found = choices(server, {**question_body(one, n=2, seed=1), "temperature": 0.1})
    assert len(found) == 2
    for choice in found:
        assert len(choice["message"]["masks"]) == 2
        for mask, reference in zip(choice["message"]["masks"], one.masks("fp32"), strict=True):
            assert iou(mask, reference) >= 0.999


def test_different_choices_have_as_many_masks_as_segs(server: Server) -> None:
    request = limited("d04-answer", WORDS, 10, n=6, seed=7)
    found = choices(server, {**request, "temperature": 2.0})
    counts = [choice["token_ids"].count(SEG) for choice in found]
    assert len(set(counts)) > 1
    assert [len(choice["message"]["masks"]) for choice in found] == counts
    assert [choice["message"]["content"].count("[SEG]") for choice in found] == counts


@pytest.mark.parametrize("count", [1, 3, MOST_MASKS + 2])
def test_every_seg_has_a_mask_up_to_the_limit(server: Server, count: int) -> None:
    [choice] = choices(server, limited("d07-answer", [SEG], count))
    masks = choice["message"]["masks"]
    assert choice["token_ids"] == [SEG] * count
    assert [mask["seg_index"] for mask in masks] == list(range(min(count, MOST_MASKS)))


def test_segs_of_one_answer_have_masks_of_their_own(server: Server) -> None:
    [choice] = choices(server, limited("d01-answer", [SEG], 3))
    first, second, _ = choice["message"]["masks"]
    assert iou(first, second) < 0.9


def test_a_first_token_seg_is_what_force_gives(server: Server) -> None:
    """The same row, read out by decoding and by prefill alone."""
    [choice] = choices(server, limited("d01-answer", [SEG], 1))
    one = question_body(recording("d01-answer"), segmentation={"mode": "force"})
    [forced] = choices(server, one)
    assert choice["message"]["masks"][0]["counts"] == forced["message"]["masks"][0]["counts"]
