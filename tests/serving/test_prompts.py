"""What the server makes of the messages: prompt ids, turns, system text, templates."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.overlap import iou
from tests.chat import body, question_body, user
from tests.oracle import IMAGE_ROWS, Recording, each_recording, recording
from tests.pictures import data_url
from tests.server import Server

IMAGE_TOKEN = 32004
SEG = 32003


def told(server: Server, request: dict[str, Any]) -> dict[str, Any]:
    reply = server.chat({**request, "return_token_ids": True})
    assert reply.status_code == 200, reply.text
    return reply.json()


def prompt_ids(server: Server, request: dict[str, Any]) -> list[int]:
    return told(server, request)["prompt_token_ids"]


def picture(name: str = "d01-answer") -> str:
    return data_url(recording(name).image_file.read_bytes())


@each_recording()
def test_prompt_ids_are_lisas(server: Server, recording: Recording) -> None:
    expected: list[int] = []
    for token in recording.prompt_ids():
        expected += [IMAGE_TOKEN] * IMAGE_ROWS if token == -200 else [token]
    reply = told(server, question_body(recording))
    assert reply["prompt_token_ids"] == expected
    assert reply["usage"]["prompt_tokens"] == len(expected)


@each_recording(lambda one: one.generated)
def test_generated_ids_are_lisas(server: Server, recording: Recording) -> None:
    [choice] = told(server, question_body(recording))["choices"]
    assert choice["token_ids"] == recording.generated_ids("fp32")


def test_a_system_message_takes_the_place_of_the_templates(server: Server) -> None:
    question = user("What is shown in this image?", picture())
    usual = prompt_ids(server, body(question, max_tokens=1))
    system = {"role": "system", "content": "Be brief."}
    own = prompt_ids(server, body(system, question, max_tokens=1))
    assert own[:4] == [1, 1522, 11473, 29889]  # <s> Be brief .
    assert own.count(IMAGE_TOKEN) == IMAGE_ROWS
    assert own[own.index(IMAGE_TOKEN) :] == usual[usual.index(IMAGE_TOKEN) :]
    assert len(own) < len(usual)


def test_a_seg_in_an_earlier_answer_is_one_token_and_gets_no_mask(server: Server) -> None:
    one = recording("d09-answer")
    reply = told(server, question_body(one))
    assert reply["prompt_token_ids"].count(SEG) == 1
    [mask] = reply["choices"][0]["message"]["masks"]
    assert iou(mask, one.masks("fp32")[0]) >= 0.999


def test_the_servers_own_answer_can_be_sent_back_as_history(server: Server) -> None:
    """Its text is LISA's, with a space before the dot that the tokenizer takes off again."""
    asked = recording("d09-answer").case["history"][0][0]
    url = picture("d09-answer")
    first = told(server, body(user(asked, url)))["choices"][0]["message"]["content"]
    assert "[SEG] ." in first
    follow_up = user(recording("d09-answer").question_text)
    with_space = body(user(asked, url), {"role": "assistant", "content": first}, follow_up)
    written = {"role": "assistant", "content": first.replace(" .", ".")}
    without = body(user(asked, url), written, follow_up)
    assert prompt_ids(server, with_space) == prompt_ids(server, without)


def test_the_image_may_come_in_a_later_turn(server: Server) -> None:
    messages = [user("Hello"), {"role": "assistant", "content": "Hi."}]
    question = user(recording("d02-answer").question_text, picture("d02-answer"))
    reply = told(server, body(*messages, question, segmentation={"mode": "force"}))
    assert reply["prompt_token_ids"].count(IMAGE_TOKEN) == IMAGE_ROWS
    assert len(reply["choices"][0]["message"]["masks"]) == 1


def test_the_template_changes_the_prompt(server: Server) -> None:
    request = body(user("What is shown in this image?", picture()), max_tokens=1)
    own = {**request, "chat_template_kwargs": {"conv_template": "llava_llama_2"}}
    assert prompt_ids(server, own)[:2] != prompt_ids(server, request)[:2]


def test_an_open_answer_is_continued(server: Server) -> None:
    one = recording("d01-answer")
    request = body(
        user(one.question_text, picture()),
        {"role": "assistant", "content": "Sure, it is"},
        continue_final_message=True,
        add_generation_prompt=False,
    )
    reply = told(server, request)
    assert reply["choices"][0]["token_ids"] == one.generated_ids("fp32")[4:]
    [mask] = reply["choices"][0]["message"]["masks"]
    assert iou(mask, one.masks("fp32")[0]) >= 0.999


@pytest.mark.parametrize("text", ["<image>", "a <image> b", "<im_start><image><im_end>"])
def test_an_image_placeholder_in_the_text_is_text(server: Server, text: str) -> None:
    reply = prompt_ids(server, body(user(text, picture()), max_tokens=1))
    assert reply.count(IMAGE_TOKEN) == IMAGE_ROWS
    alone = prompt_ids(server, body(user(text), max_tokens=1))
    assert IMAGE_TOKEN not in alone
