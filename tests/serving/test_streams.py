"""A streamed answer: the same text, the masks in its last chunk."""

from __future__ import annotations

from benchmarks.overlap import iou
from tests.chat import body, question_body, user
from tests.oracle import Recording, each_recording, recording
from tests.server import Server
from tests.serving.events import stream


@each_recording()
def test_text_and_masks_are_those_of_a_whole_answer(server: Server, recording: Recording) -> None:
    whole = server.chat(question_body(recording)).json()["choices"][0]["message"]
    streamed = stream(server, question_body(recording))
    assert streamed.text() == whole["content"]
    assert len(streamed.masks()) == len(whole["masks"])
    for mask, expected in zip(streamed.masks(), whole["masks"], strict=True):
        assert iou(mask, expected) >= 0.999


def test_text_comes_in_pieces(server: Server) -> None:
    deltas = stream(server, question_body(recording("d04-answer"))).deltas()
    assert sum(bool(delta.get("content")) for delta in deltas) > 3


def test_masks_come_with_the_reason_for_the_end(server: Server) -> None:
    streamed = stream(server, question_body(recording("d01-answer")))
    finished = [
        choice
        for chunk in streamed.chunks
        for choice in chunk["choices"]
        if choice.get("finish_reason")
    ]
    assert [choice["finish_reason"] for choice in finished] == ["stop"]
    assert len(finished[0]["delta"]["masks"]) == 1
    with_masks = [choice for chunk in streamed.chunks for choice in chunk["choices"]]
    assert sum("masks" in choice["delta"] for choice in with_masks) == 1


def test_every_choice_ends_with_its_masks(server: Server) -> None:
    one = recording("d04-answer")
    streamed = stream(server, {**question_body(one, n=3, seed=1), "temperature": 0.1})
    for index in range(3):
        assert " ".join(streamed.text(index).split()) == one.text("fp32")
        assert len(streamed.masks(index)) == 2


def test_no_seg_no_masks(server: Server) -> None:
    assert stream(server, question_body(recording("d05-answer"))).masks() == []
    assert stream(server, body(user("Hello"), max_tokens=8)).masks() == []


def test_usage_comes_when_asked_for(server: Server) -> None:
    request = question_body(recording("d01-forced0"), stream_options={"include_usage": True})
    *_, last = stream(server, request).chunks
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 1


def test_statistics_come_with_the_masks(server: Server) -> None:
    request = question_body(recording("d01-answer"), segmentation={"stats": True})
    told = [one["segmentation"] for one in stream(server, request).chunks if "segmentation" in one]
    assert [one["visual_tokens"] for one in told] == [256]
