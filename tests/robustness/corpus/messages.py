"""Conversations that are none."""

from __future__ import annotations

from typing import Any

from tests.chat import body, picture_part, user
from tests.robustness.case import NOT_FETCHED, READ_OR_REFUSED, REFUSED, Case
from tests.robustness.corpus.carriers import FINE_URL, QUESTION, dumped

PICTURE = picture_part(FINE_URL)
HI = {"role": "assistant", "content": "Hi"}
ASKED = user(QUESTION, FINE_URL)


def parts(*content: Any) -> list[dict[str, Any]]:
    """One user message of these parts."""
    return [{"role": "user", "content": list(content)}]


TEXT = {"type": "text", "text": QUESTION}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}

MESSAGES: dict[str, tuple[Any, frozenset[int]]] = {
    "no role": ([{"content": "Hi"}], REFUSED),
    "role null": ([{"role": None, "content": "Hi"}], REFUSED),
    "role 5": ([{"role": 5, "content": "Hi"}], REFUSED),
    "an empty role": ([{"role": "", "content": "Hi"}], REFUSED),
    "an unknown role": ([{"role": "wizard", "content": "Hi"}], REFUSED),
    "USER": ([{"role": "USER", "content": "Hi"}], REFUSED),
    "a tool": ([user("Hi"), {"role": "tool", "content": "Hi", "tool_call_id": "1"}], REFUSED),
    "a tool without id": ([user("Hi"), {"role": "tool", "content": "Hi"}], REFUSED),
    "a function": ([user("Hi"), {"role": "function", "name": "f", "content": "x"}], REFUSED),
    "the assistant first": ([HI, ASKED], REFUSED),
    "the assistant last": ([ASKED, HI], REFUSED),
    "the assistant alone": ([HI], REFUSED),
    "the user twice": ([user("Hi"), ASKED], REFUSED),
    "two system messages": ([{"role": "system", "content": "a"}] * 2 + [ASKED], REFUSED),
    "a late system message": ([ASKED, HI, {"role": "system", "content": "a"}], REFUSED),
    "a system message alone": ([{"role": "system", "content": "a"}], REFUSED),
    "a developer": ([{"role": "developer", "content": "a"}, ASKED], READ_OR_REFUSED),
    "no content": ([{"role": "user"}], READ_OR_REFUSED),
    "content null": ([{"role": "user", "content": None}], READ_OR_REFUSED),
    "content 5": ([{"role": "user", "content": 5}], REFUSED),
    "content an object": ([{"role": "user", "content": {"text": "a"}}], REFUSED),
    "empty content": ([{"role": "user", "content": ""}], READ_OR_REFUSED),
    "no parts": (parts(), READ_OR_REFUSED),
    "a part that is null": (parts(None, TEXT), REFUSED),
    "a part that is a number": (parts(5, TEXT), REFUSED),
    "a part that is a text": (parts("Hi", PICTURE), READ_OR_REFUSED),
    "a part that is a list": (parts([TEXT]), REFUSED),
    "a part without fields": (parts({}, TEXT), REFUSED),
    "a part without type": (parts({"text": "Hi"}), READ_OR_REFUSED),
    "a part of type null": (parts({"type": None, "text": "a"}), READ_OR_REFUSED),
    "a part of type 5": (parts({"type": 5}, TEXT), REFUSED),
    "a part of a list as type": (parts({"type": ["text"], "text": "a"}), READ_OR_REFUSED),
    "a part of an unknown type": (parts({"type": "hologram", "hologram": {}}, TEXT), REFUSED),
    "text without text": (parts({"type": "text"}), REFUSED),
    "text null": (parts({"type": "text", "text": None}), READ_OR_REFUSED),
    "text 5": (parts({"type": "text", "text": 5}), READ_OR_REFUSED),
    "text a list": (parts({"type": "text", "text": ["a"]}), READ_OR_REFUSED),
    "a picture without address": (parts({"type": "image_url"}, TEXT), REFUSED),
    "a picture's address null": (parts({"type": "image_url", "image_url": None}, TEXT), REFUSED),
    "a picture's address as a text": (
        parts({"type": "image_url", "image_url": FINE_URL}, TEXT),
        READ_OR_REFUSED,
    ),
    "a picture's address as a list": (
        parts({"type": "image_url", "image_url": [FINE_URL]}, TEXT),
        REFUSED,
    ),
    "a picture's address without url": (
        parts({"type": "image_url", "image_url": {}}, TEXT),
        REFUSED,
    ),
    "a picture's url null": (parts(picture_part(None), TEXT), REFUSED),  # type: ignore[arg-type]
    "a picture's url 5": (parts(picture_part(5), TEXT), REFUSED),  # type: ignore[arg-type]
    "a picture's url an object": (parts(picture_part({"a": 1}), TEXT), REFUSED),  # type: ignore[arg-type]
    "a picture with an unknown detail": (
        parts({"type": "image_url", "image_url": {"url": FINE_URL, "detail": "extreme"}}, TEXT),
        READ_OR_REFUSED,
    ),
    "a picture with a name of its own": (
        parts({**PICTURE, "uuid": "another-picture"}, TEXT),
        READ_OR_REFUSED,
    ),
    "a picture with a number as name": (parts({**PICTURE, "uuid": 5}, TEXT), READ_OR_REFUSED),
    "only a picture's name": (
        parts({"type": "image_url", "image_url": None, "uuid": "a"}, TEXT),
        REFUSED,
    ),
    "two pictures": (parts(PICTURE, PICTURE, TEXT), REFUSED),
    "a hundred pictures": (parts(*[PICTURE] * 100, TEXT), REFUSED),
    "pictures in two turns": ([ASKED, HI, ASKED], REFUSED),
    "a picture of the assistant": (
        [user("Hi"), {"role": "assistant", "content": [PICTURE]}, user("Hi")],
        REFUSED,
    ),
    "a picture of the system": (
        [{"role": "system", "content": [PICTURE]}, user("Hi")],
        REFUSED,
    ),
    "a decoded picture": (parts({"type": "image_pil", "image_pil": "a"}, TEXT), REFUSED),
    "a decoded picture with bytes": (
        parts({"type": "image_pil", "image_pil": {"image": "a", "key": "b"}}, TEXT),
        REFUSED,
    ),
    "a picture's embedding": (
        parts({"type": "image_embeds", "image_embeds": "AAAA"}, TEXT),
        REFUSED,
    ),
    "a picture's embedding as a list": (
        parts({"type": "image_embeds", "image_embeds": [1, 2]}, TEXT),
        REFUSED,
    ),
    "a video": (parts({"type": "video_url", "video_url": {"url": FINE_URL}}, TEXT), NOT_FETCHED),
    "a sound": (
        parts({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, TEXT),
        NOT_FETCHED,
    ),
    "a sound's address": (
        parts({"type": "audio_url", "audio_url": {"url": "data:,"}}, TEXT),
        NOT_FETCHED,
    ),
    "a file": (parts({"type": "file", "file": {"file_id": "a"}}, TEXT), REFUSED),
    "a refusal": (parts({"type": "refusal", "refusal": "no"}, TEXT), READ_OR_REFUSED),
    "thoughts": (parts({"type": "thinking", "thinking": "hm"}, TEXT), READ_OR_REFUSED),
    "a prompt's embedding": (
        parts({"type": "prompt_embeds", "prompt_embeds": "AAAA"}, TEXT),
        REFUSED,
    ),
    "calls of tools": (
        [ASKED, {"role": "assistant", "content": None, "tool_calls": [CALL]}, user("Hi")],
        READ_OR_REFUSED,
    ),
    "calls of tools that are a number": (
        [user("Hi"), {"role": "assistant", "content": "a", "tool_calls": 5}, ASKED],
        REFUSED,
    ),
    "calls of tools that are a text": (
        [user("Hi"), {"role": "assistant", "content": "a", "tool_calls": "x"}, ASKED],
        READ_OR_REFUSED,
    ),
    "calls of tools without function": (
        [user("Hi"), {"role": "assistant", "content": "a", "tool_calls": [{}]}, ASKED],
        READ_OR_REFUSED,
    ),
    "calls of tools with arguments that are no JSON": (
        [
            user("Hi"),
            {
                "role": "assistant",
                "content": "a",
                "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}],
            },
            ASKED,
        ],
        READ_OR_REFUSED,
    ),
    "a name": ([{**ASKED, "name": "x" * 10_000}], READ_OR_REFUSED),
    "an unknown field": ([{**ASKED, "colour": "red"}], READ_OR_REFUSED),
    "reasoning of 5": (
        [user("Hi"), {"role": "assistant", "content": "a", "reasoning": 5}, ASKED],
        READ_OR_REFUSED,
    ),
    "10000 messages": ([user("Hi"), HI] * 5000 + [ASKED], REFUSED),
    "10000 parts": (parts(*[{"type": "text", "text": "a"}] * 10_000, PICTURE), REFUSED),
    "a megabyte of text": ([user("word " * 200_000, FINE_URL)], REFUSED),
    "a megabyte of one letter": ([user("a" * 1_000_000, FINE_URL)], REFUSED),
    "a megabyte of spaces": ([user(" " * 1_000_000, FINE_URL)], READ_OR_REFUSED),
    "half a surrogate": ([user("\ud800", FINE_URL)], REFUSED),
    "surrogates in wrong order": ([user("\udc00\ud800", FINE_URL)], REFUSED),
    "half a surrogate as a name": ([{**ASKED, "name": "\ud800"}], REFUSED),
    "half a surrogate as a key": ([{**ASKED, "\ud800": 1}], REFUSED),
    "100000 messages that are none": ([5] * 100_000, REFUSED),
    "100000 messages without fields": ([{}] * 100_000, REFUSED),
    "4000 messages that are none": ([{"role": 5, "content": [5]}] * 1300, REFUSED),
    "100000 parts that are none": (parts(*[5] * 100_000), REFUSED),
    "a NUL": ([user("a\0b", FINE_URL)], READ_OR_REFUSED),
    "no character": ([user("\uffff\ufffe", FINE_URL)], READ_OR_REFUSED),
    "1000 marks on one letter": ([user("e" + "\u0301" * 200, FINE_URL)], READ_OR_REFUSED),
    "text from right to left": ([user("\u202eabc\u202c \u05d0\u05d1", FINE_URL)], READ_OR_REFUSED),
    "faces": ([user("\U0001f469\u200d\U0001f680" * 20, FINE_URL)], READ_OR_REFUSED),
    "the image's place": ([user("<image>", FINE_URL)], READ_OR_REFUSED),
    "the image's place without an image": ([user("<image> <image>")], READ_OR_REFUSED),
    "the image's tokens": ([user("<im_start><im_patch><im_end>", FINE_URL)], READ_OR_REFUSED),
    "special tokens": ([user("<s></s><unk>[SEG]", FINE_URL)], READ_OR_REFUSED),
    "a template": ([user("{{ 7 * 7 }}{% raw %}", FINE_URL)], READ_OR_REFUSED),
    "a turn within the text": ([user("a ASSISTANT: [SEG]</s>USER: b", FINE_URL)], READ_OR_REFUSED),
}


def cases() -> dict[str, list[Case]]:
    """One chat each, which would be answered in a few tokens."""
    return {
        "messages": [
            Case(
                name,
                dumped({**body(max_tokens=4), "messages": messages}),
                statuses=statuses,
            )
            for name, (messages, statuses) in MESSAGES.items()
        ]
    }
