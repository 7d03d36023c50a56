"""Many questions about one image in one call: LISA's masks, one encoding, one failure at a time."""

from __future__ import annotations

import base64
import time
from functools import partial
from typing import Any

import pytest

from benchmarks.overlap import iou
from tests.chat import question_body
from tests.oracle import Recording, recording
from tests.pictures import data_url, encoded, gradient
from tests.server import Server, wait_until
from tests.serving.test_disconnect import Caller, idle
from vllm_csp.masks import decode_mask

ON_COFFEE = ["d02-forced0", "dg1-forced0", "dg1-forced1", "dg1-forced2"]
SECONDS = 60
TOO_LONG = "word " * 1100


def post(server: Server, **request: Any) -> Any:
    with server.client() as client:
        return client.post("/v1/segment", **request)


def segmented(server: Server, **body: Any) -> dict[str, Any]:
    reply = post(server, json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()


def coffee() -> tuple[bytes, list[Recording]]:
    asked = [recording(name) for name in ON_COFFEE]
    return asked[0].image_file.read_bytes(), asked


@pytest.fixture
def new_picture() -> str:
    """A picture that the server has not seen."""
    return data_url(encoded(gradient(100 + time.monotonic_ns() % 400, 173)))


def check(reply: dict[str, Any], asked: list[Recording]) -> None:
    """All masks are LISA's, in the order of the questions."""
    assert [result["question"] for result in reply["results"]] == [
        one.question_text for one in asked
    ]
    for result, one in zip(reply["results"], asked, strict=True):
        assert (result["answer"], result["finish_reason"]) == ("[SEG].", "stop")
        [mask] = result["masks"]
        assert iou(mask, one.masks("fp32")[0]) >= 0.999


@pytest.mark.parametrize("kind", ["data URL", "base64", "form", "form with an address"])
def test_masks_are_lisas_however_the_image_is_sent(server: Server, kind: str) -> None:
    file, asked = coffee()
    questions = [one.question_text for one in asked]
    url = data_url(file)
    body: dict[str, Any] = {
        "data URL": {"json": {"image": url, "questions": questions}},
        "base64": {
            "json": {"image": base64.b64encode(file).decode(), "questions": questions},
        },
        "form": {"data": {"questions": questions}, "files": {"image": ("a.png", file)}},
        # A form without a file: httpx then needs to be told.
        "form with an address": {"files": [(name, (None, text)) for name, text in fields(url)]},
    }[kind]
    reply = post(server, **body)
    assert reply.status_code == 200, reply.text
    check(reply.json(), asked)


def fields(url: str) -> list[tuple[str, str]]:
    return [("image", url), *(("questions", recording(one).question_text) for one in ON_COFFEE)]


def test_the_answer_describes_image_model_and_use(server: Server) -> None:
    file, asked = coffee()
    with server.client() as client:
        reply = client.post(
            "/v1/segment",
            json={"image": data_url(file), "questions": [asked[0].question_text] * 2},
            headers={"X-Request-Id": "mine"},
        ).json()
    assert (reply["id"], reply["object"], reply["model"]) == ("seg-mine", "segmentation", "lisa")
    assert reply["image"] == {"width": 600, "height": 400}
    assert abs(reply["created"] - time.time()) < SECONDS
    usage = reply["usage"]
    assert usage["completion_tokens"] == 2
    assert usage["total_tokens"] == usage["prompt_tokens"] + 2 > 512


def test_generated_answers_are_those_of_the_chat(server: Server) -> None:
    asked = [recording(name) for name in ("d03-answer", "d10-answer")]
    url = data_url(asked[0].image_file.read_bytes())
    questions = [one.question_text for one in asked]
    reply = segmented(server, image=url, questions=questions, mode="generate")
    for result, one in zip(reply["results"], asked, strict=True):
        # One of the two was recorded with fewer tokens.
        assert " ".join(result["answer"].split()).startswith(one.text("fp32"))
        [mask] = result["masks"]
        assert iou(mask, one.masks("fp32")[0]) >= 0.999
    cut = segmented(server, image=url, questions=questions, mode="generate", max_tokens=2)
    assert [one["finish_reason"] for one in cut["results"]] == ["length"] * 2


def test_options_are_those_of_the_chat(server: Server) -> None:
    one = recording("d08-forced0")
    body = question_body(one, segmentation={"mask_format": "png", "show_tokens": True})
    chat = server.chat(body).json()
    reply = segmented(
        server,
        image=data_url(one.image_file.read_bytes()),
        questions=[one.question_text],
        conv_template="llava_llama_2",
        mask_format="png",
        show_tokens=True,
        model="lisa",
    )
    [result] = reply["results"]
    assert result["masks"] == chat["choices"][0]["message"]["masks"]
    assert result["segmentation"] == chat["segmentation"]
    assert len(result["segmentation"]["kept_tokens"][0]) == 256


def test_the_image_is_encoded_once(server: Server, new_picture: str) -> None:
    before = server.held()
    reply = segmented(server, image=new_picture, questions=[f"What is {i}?" for i in range(24)])
    assert all(len(result["masks"]) == 1 for result in reply["results"])
    after = server.held()
    assert after["embedding_misses"] - before["embedding_misses"] == 1
    again = segmented(server, image=new_picture, questions=["What is 0?"])
    assert iou(again["results"][0]["masks"][0], reply["results"][0]["masks"][0]) >= 0.999
    assert server.held()["embedding_misses"] == after["embedding_misses"]


@pytest.mark.parametrize("place", [0, 2], ids=["first", "in_the_middle"])
def test_a_question_that_fails_spoils_no_other(
    server: Server, new_picture: str, place: int
) -> None:
    questions = ["What is this?", "Where is it?", "Which one?"]
    questions.insert(place, TOO_LONG)
    results = segmented(server, image=new_picture, questions=questions)["results"]
    failed = results.pop(place)
    assert "maximum context length is 1024 tokens" in failed["error"]["message"]
    assert (failed["error"]["code"], failed["masks"]) == (400, [])
    assert "answer" not in failed
    assert all(len(one["masks"]) == 1 and "error" not in one for one in results)


def test_if_all_questions_fail_the_call_does(server: Server, new_picture: str) -> None:
    reply = post(server, json={"image": new_picture, "questions": [TOO_LONG, TOO_LONG]})
    assert reply.status_code == 400
    assert "maximum context length" in reply.json()["error"]["message"]


def has_read_prompts(server: Server, before: float) -> bool:
    """Whether the engine has read more tokens of prompts than these."""
    return server.prompt_tokens() > before


@pytest.mark.parametrize("mode", ["force", "generate"])
def test_who_goes_away_leaves_nothing(server: Server, new_picture: str, mode: str) -> None:
    wait_until(lambda: idle(server), SECONDS, "earlier requests have gone")
    questions = [f"Please segment thing {i}." for i in range(32)]
    request = {"image": new_picture, "questions": questions, "mode": mode}
    for moment in ("sent", "running"):
        before = server.prompt_tokens()
        caller = Caller(server, request, path="/v1/segment")
        caller.send()
        if moment == "running":
            # What runs is gone before one has looked twice; what has begun stays counted.
            begun = partial(has_read_prompts, server, before)
            wait_until(begun, SECONDS, "questions have begun")
        caller.hang_up()
        wait_until(lambda: idle(server), SECONDS, "nothing runs and nothing is held")
    assert len(segmented(server, image=new_picture, questions=["What?"])["results"]) == 1


def test_exif_orientation_counts(server: Server) -> None:
    picture = gradient(120, 80)
    exif = picture.getexif()
    exif[0x0112] = 6
    url = data_url(encoded(picture, "JPEG", exif=exif), "jpeg")
    reply = segmented(server, image=url, questions=["What is this?"])
    assert reply["image"] == {"width": 80, "height": 120}
    assert decode_mask(reply["results"][0]["masks"][0]).shape == (120, 80)
