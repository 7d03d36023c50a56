"""LISA's prompts, from chat messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from vllm.exceptions import VLLMValidationError

from tests.oracle import Recording, each_recording
from vllm_csp.config import ConversationTemplate
from vllm_csp.models.conversation import IMAGE, Image, Piece, Turn, build_prompt
from vllm_csp.models.renderer import prompt_pieces

TEMPLATES: tuple[ConversationTemplate, ...] = ("llava_v1", "llava_llama_2")
each_template = pytest.mark.parametrize("template", TEMPLATES)
Message = Mapping[str, Any]


def shown(pieces: Sequence[Piece]) -> str:
    """The prompt as LISA writes it."""
    return "".join("<image>" if isinstance(piece, Image) else piece for piece in pieces)


def user(text: str, *, image: bool = False) -> Message:
    parts = [{"type": "text", "text": text}]
    return {"role": "user", "content": [{"type": "image"}, *parts] if image else parts}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


@each_recording(lambda one: one.generated)
def test_prompts_are_lisas(recording: Recording) -> None:
    """Both templates, and a conversation with an earlier answer."""
    turns: list[Turn] = []
    for asked, answered in recording.case["history"]:
        turns += [Turn("user", asked, has_image=not turns), Turn("assistant", answered)]
    turns.append(Turn("user", recording.question_text, has_image=not turns))
    pieces = build_prompt(turns, template=recording.case["conv_template"])
    assert shown(pieces) == recording.numbers["prompt"]


def test_the_image_stands_alone_between_two_texts() -> None:
    pieces = build_prompt([Turn("user", "What?", has_image=True)])
    assert [isinstance(piece, str) for piece in pieces] == [True, False, True]
    assert pieces[1] is IMAGE


@each_template
def test_text_only(template: ConversationTemplate) -> None:
    text = shown(build_prompt([Turn("user", "Hello")], template=template))
    assert "<im" not in text
    assert "Hello" in text


@each_template
def test_system_text_takes_the_place_of_the_templates(template: ConversationTemplate) -> None:
    own = shown(prompt_pieces([system("Be brief."), user("Hi")], template))
    usual = shown(prompt_pieces([user("Hi")], template))
    assert "Be brief." in own
    assert "assistant" in usual
    assert "helpful" in usual and "helpful" not in own


def test_system_text_may_be_called_developer() -> None:
    told: Message = {"role": "developer", "content": "Be brief."}
    assert prompt_pieces([told, user("Hi")]) == prompt_pieces([system("Be brief."), user("Hi")])


@each_template
def test_a_later_turn_may_carry_the_image(template: ConversationTemplate) -> None:
    messages = [user("Hi"), assistant("Hello."), user("What?", image=True)]
    text = shown(prompt_pieces(messages, template))
    assert text.index("Hello.") < text.index("<im_start><image><im_end>\nWhat?")


def test_seg_in_an_earlier_answer_stays() -> None:
    messages = [user("Cat?", image=True), assistant("Sure, [SEG]."), user("Dog?")]
    text = shown(prompt_pieces(messages))
    assert "USER: <im_start><image><im_end>\nCat? ASSISTANT: Sure, [SEG].</s>USER: Dog? " in text
    assert text.endswith("ASSISTANT:")


def test_the_request_chooses_the_template() -> None:
    pieces = prompt_pieces([user("Hi")], "llava_v1", conv_template="llava_llama_2")
    assert pieces == prompt_pieces([user("Hi")], "llava_llama_2")


@each_template
def test_an_open_answer_is_continued(template: ConversationTemplate) -> None:
    messages = [user("Cat?", image=True), assistant("Sure, it is")]
    text = shown(prompt_pieces(messages, template, continue_final_message=True))
    assert text.endswith("Sure, it is")


def test_several_texts_of_a_message_are_lines() -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    text = shown(prompt_pieces([{"role": "user", "content": parts}]))
    assert "USER: one\ntwo ASSISTANT:" in text


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "last message must come from the user"),
        ([assistant("Hi"), user("Hi")], "alternate"),
        ([user("Hi"), user("Hi")], "alternate"),
        ([user("Hi"), assistant("Hi")], "last message must come from the user"),
        ([user("Hi"), system("Hi"), user("Hi")], "role 'system'"),
        ([{"role": "tool", "content": "Hi"}], "role 'tool'"),
        ([user("Hi"), {**user("Hi", image=True), "role": "assistant"}, user("Hi")], "image"),
        ([{**user("Hi", image=True), "role": "system"}, user("Hi")], "image"),
    ],
)
def test_wrong_messages_are_refused_with_the_reason(messages: list[Message], reason: str) -> None:
    with pytest.raises(VLLMValidationError, match=reason):
        prompt_pieces(messages)


@pytest.mark.parametrize("template", ["x", ["llava_v1"], 5])
def test_an_unknown_template_is_refused(template: Any) -> None:
    with pytest.raises(VLLMValidationError, match="choose llava_v1 or llava_llama_2"):
        prompt_pieces([user("Hi")], conv_template=template)
