"""Eight questions about one image: what is reused, and that masks are those of each asked alone."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.metrics import summed
from benchmarks.overlap import iou
from tests.oracle import recording
from tests.pictures import data_url
from tests.server import Server

THINGS = ("cup", "face", "wall", "table", "cat", "window", "largest object", "person on the left")
QUESTIONS = [f"What is the {one} in this image? Please output segmentation mask." for one in THINGS]
# vLLM's blocks of 128 tokens on a CPU: of LISA's 35 + 256 tokens before a question, two are whole.
SHARED_TOKENS = 256


def segment(server: Server, picture: str, questions: list[str], mode: str) -> list[dict[str, Any]]:
    body = {"image": picture, "questions": questions, "mode": mode, "max_tokens": 12}
    with server.client() as client:
        reply = client.post("/v1/segment", json=body)
    return reply.raise_for_status().json()["results"]


def forget(server: Server) -> None:
    """Keys, values and image rows; SAM's embeddings are named by content and stay."""
    with server.client() as client:
        for route in ("reset_prefix_cache", "reset_mm_cache", "reset_encoder_cache"):
            client.post(f"/{route}").raise_for_status()


def reused_tokens(server: Server) -> float:
    [count] = summed(server.metrics(), ["vllm:prefix_cache_hits_total"]).values()
    return count


@pytest.mark.parametrize("mode", ["force", "generate"])
def test_eight_questions_cost_one_image_and_give_the_masks_of_each_alone(
    server: Server, mode: str
) -> None:
    picture = data_url(recording("d01-answer").image_file.read_bytes())
    alone = []
    for question in QUESTIONS:
        forget(server)
        alone += segment(server, picture, [question], mode)

    forget(server)
    before, held = reused_tokens(server), server.held()
    together = segment(server, picture, QUESTIONS, mode)
    # All eight enter the engine at once, and seven still find what the first one computes.
    assert reused_tokens(server) - before == (len(QUESTIONS) - 1) * SHARED_TOKENS
    assert server.held()["embedding_misses"] == held["embedding_misses"]

    for one, expected in zip(together, alone, strict=True):
        assert (one["question"], one["answer"]) == (expected["question"], expected["answer"])
        assert len(one["masks"]) == len(expected["masks"])
        for mask, reference in zip(one["masks"], expected["masks"], strict=True):
            assert iou(mask, reference) >= 0.999
    assert mode == "generate" or all(len(one["masks"]) == 1 for one in together)
