"""Bodies that are large, up to some and beyond all limits."""

from __future__ import annotations

import base64
import json

from tests.robustness.case import CHAT, REFUSED, SEGMENT, Case
from tests.robustness.corpus.carriers import (
    FINE_FILE,
    FINE_URL,
    FORM,
    QUESTION,
    chat_about,
    file_part,
    form,
    part,
    segment_about,
)

TOO_LARGE = frozenset({400, 413})
MEBIBYTE = 1 << 20
MANY_VALUES = b"[" + b"0," * (15 * MEBIBYTE) + b"0]"


def padded(size: int) -> bytes:
    """A PNG with so many bytes behind it."""
    return FINE_FILE + bytes(size)


def _in_chat(size: int) -> bytes:
    text = base64.b64encode(bytes(size)).decode()
    return json.dumps(chat_about(f"data:image/png;base64,{text}")).encode()


def _in_call(size: int) -> bytes:
    return json.dumps(segment_about(base64.b64encode(bytes(size)).decode())).encode()


def _in_form(size: int) -> bytes:
    return form(file_part(bytes(size)), part("questions", QUESTION.encode()))


def cases() -> dict[str, list[Case]]:
    """Zeros for pictures, between 1 and 64 MiB, and the same of white space and of questions."""
    found = []
    for size in (1, 10, 25, 64):
        found += [
            Case(f"chat: {size} MiB", lambda size=size: _in_chat(size * MEBIBYTE), CHAT, TOO_LARGE),
            Case(
                f"call: {size} MiB", lambda size=size: _in_call(size * MEBIBYTE), SEGMENT, TOO_LARGE
            ),
            Case(
                f"form: {size} MiB",
                lambda size=size: _in_form(size * MEBIBYTE),
                SEGMENT,
                TOO_LARGE,
                FORM,
            ),
        ]
    found += [
        Case("chat: 40 MiB of spaces", lambda: b" " * (40 * MEBIBYTE), CHAT, TOO_LARGE),
        Case("call: 40 MiB of spaces", lambda: b" " * (40 * MEBIBYTE), SEGMENT, TOO_LARGE),
        Case(
            "call: 40 MiB of questions",
            lambda: json.dumps(segment_about("a", questions=["?" * MEBIBYTE] * 40)).encode(),
            SEGMENT,
            TOO_LARGE,
        ),
        Case("chat: a list of 16 million", lambda: MANY_VALUES, CHAT, frozenset({413})),
        Case("call: a list of 16 million", lambda: MANY_VALUES, SEGMENT, frozenset({413})),
        Case(
            "chat: a million values in a field",
            lambda: json.dumps(chat_about(FINE_URL, a=[0] * 1_000_000)).encode(),
            CHAT,
            frozenset({413}),
        ),
        Case(
            "call: 30 MiB of another kind",
            lambda: bytes(30 * MEBIBYTE),
            SEGMENT,
            frozenset({413, 415}),
            "application/octet-stream",
        ),
        Case(
            "chat: 30 MiB of another kind",
            lambda: bytes(30 * MEBIBYTE),
            CHAT,
            frozenset({400, 413, 415}),
            "application/octet-stream",
        ),
    ]
    return {"sizes": found}


__all__ = ["REFUSED", "cases"]
