"""Many requests at once change nothing in any answer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from benchmarks.overlap import iou
from tests.chat import body, question_body, user
from tests.oracle import recordings
from tests.pictures import data_url, encoded, gradient
from tests.server import Server, wait_until
from tests.serving.events import stream

AT_ONCE = 32
Reply = tuple[str, list[dict[str, Any]]]
Job = tuple[dict[str, Any], bool]


def jobs() -> list[Job]:
    """32 requests, every second one streamed: all oracle questions, other sizes, text only."""
    requests = [question_body(one) for one in recordings()]
    sizes = [(640, 480), (33, 700), (1, 1), (1200, 90)]
    question = "Please segment the helmet in this image."
    for number, size in enumerate(sizes):
        picture = data_url(encoded(gradient(*size)))
        mode = {"mode": ("generate", "force")[number % 2], "mask_format": "png"}
        requests.append(body(user(question, picture), segmentation=mode))
    while len(requests) < AT_ONCE:
        text = body(user(f"Hello {len(requests)}"), max_tokens=8)
        requests.insert(4 * (AT_ONCE - len(requests)), text)
    return [(request, bool(number % 2)) for number, request in enumerate(requests)]


def ask(server: Server, job: Job) -> Reply:
    request, streamed = job
    if streamed:
        answer = stream(server, request)
        return answer.text(), answer.masks()
    reply = server.chat(request)
    assert reply.status_code == 200, reply.text
    message = reply.json()["choices"][0]["message"]
    return message["content"], message["masks"]


@pytest.fixture(scope="module")
def alone(server: Server) -> list[Reply]:
    """The answers to the same requests, one at a time."""
    return [ask(server, job) for job in jobs()]


def test_32_at_once_are_answered_as_one_at_a_time(server: Server, alone: list[Reply]) -> None:
    """Masks agree to IoU 0.999: kernels round differently for other batch sizes."""
    assert len(jobs()) == AT_ONCE
    with ThreadPoolExecutor(AT_ONCE) as threads:
        together = list(threads.map(lambda job: ask(server, job), jobs()))
    for (text, masks), (expected_text, expected_masks) in zip(together, alone, strict=True):
        assert text == expected_text
        assert len(masks) == len(expected_masks)
        for mask, expected in zip(masks, expected_masks, strict=True):
            assert iou(mask, expected) >= 0.999


def test_nothing_is_held_when_all_are_answered(server: Server, alone: list[Reply]) -> None:
    wait_until(
        lambda: server.running() == server.held()["streams"] == server.held()["pinned"] == 0,
        10,
        "all requests have gone",
    )


def test_eight_questions_about_a_new_image_encode_it_once(server: Server) -> None:
    picture = data_url(encoded(gradient(301, 203)))
    questions = [f"Can you segment object {number} in this image?" for number in range(8)]
    before = server.held()["embeddings"]
    with ThreadPoolExecutor(8) as threads:
        found = list(
            threads.map(
                lambda text: ask(
                    server, (body(user(text, picture), segmentation={"mode": "force"}), False)
                ),
                questions,
            )
        )
    assert [len(masks) for _, masks in found] == [1] * 8
    assert server.held()["embeddings"] == before + 1
