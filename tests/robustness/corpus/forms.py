"""Multipart bodies."""

from __future__ import annotations

from tests.robustness.case import READ, READ_OR_REFUSED, REFUSED, SEGMENT, Case
from tests.robustness.corpus.carriers import (
    BOUNDARY,
    FINE_FILE,
    FINE_URL,
    FORM,
    QUESTION,
    file_part,
    form,
    part,
)

IMAGE = file_part(FINE_FILE)
ASKED = part("questions", QUESTION.encode())
END = f"--{BOUNDARY}--\r\n".encode()

BODIES: dict[str, tuple[bytes, frozenset[int]]] = {
    "as it should be": (form(IMAGE, ASKED), READ),
    "nothing": (b"", REFUSED),
    "only the end": (form(), REFUSED),
    "only a boundary": (f"--{BOUNDARY}\r\n".encode(), REFUSED),
    "no image": (form(ASKED), REFUSED),
    "no question": (form(IMAGE), REFUSED),
    "no boundary in the body": (FINE_FILE, REFUSED),
    "JSON in the body": (b'{"image": "a", "questions": ["a"]}', REFUSED),
    "no end": (form(IMAGE, ASKED, end=b""), READ_OR_REFUSED),
    "half an end": (form(IMAGE, ASKED, end=f"--{BOUNDARY}-".encode()), READ_OR_REFUSED),
    "an end amid": (form(IMAGE, END, ASKED), REFUSED),
    "text before": (b"preamble\r\n" + form(IMAGE, ASKED), READ_OR_REFUSED),
    "text behind": (form(IMAGE, ASKED) + b"epilogue", READ_OR_REFUSED),
    "a megabyte behind": (form(IMAGE, ASKED) + b"a" * (1 << 20), READ_OR_REFUSED),
    "only line feeds": (form(IMAGE, ASKED).replace(b"\r\n", b"\n"), REFUSED),
    "an image cut off": (form(IMAGE)[:200], REFUSED),
    "a head cut off": (form(ASKED)[:40], REFUSED),
    "no empty line behind the head": (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"\r\n'.encode() + END,
        REFUSED,
    ),
    "a part without disposition": (form(part("", b"a", head="X-Other: 1"), IMAGE, ASKED), REFUSED),
    "a part without head": (
        f"--{BOUNDARY}\r\n\r\nabc\r\n".encode() + form(IMAGE, ASKED),
        REFUSED,
    ),
    "a part without name": (
        form(part("", b"a", head="Content-Disposition: form-data"), IMAGE, ASKED),
        REFUSED,
    ),
    "a part with an empty name": (form(part("", b"a"), IMAGE, ASKED), REFUSED),
    "an attachment": (
        form(part("", b"a", head='Content-Disposition: attachment; name="x"'), IMAGE, ASKED),
        REFUSED,
    ),
    "a name without quotes": (
        form(IMAGE, part("", b"a?", head="Content-Disposition: form-data; name=questions")),
        READ_OR_REFUSED,
    ),
    "a name with a quote": (form(part('a"b', b"a"), IMAGE, ASKED), REFUSED),
    "a name beyond ASCII": (form(part("fr\u00e4ge", b"a"), IMAGE, ASKED), REFUSED),
    "a name that is no UTF-8": (
        form(
            IMAGE,
            ASKED,
            b"--" + BOUNDARY.encode() + b"\r\nContent-Disposition: form-data; "
            b'name="\xff\xfe"\r\n\r\na\r\n',
        ),
        REFUSED,
    ),
    "a name of 100000 letters": (form(part("a" * 100_000, b"a"), IMAGE, ASKED), REFUSED),
    "a head of a megabyte": (
        form(part("x", b"a", "; y=" + "a" * (1 << 20)), IMAGE, ASKED),
        REFUSED,
    ),
    "1000 heads in a part": (
        form(
            part("x", b"a", "\r\n" + "\r\n".join(f"X-{i}: a" for i in range(1000))),
            IMAGE,
            ASKED,
        ),
        REFUSED,
    ),
    "a head without colon": (form(part("x", b"a", "\r\nnonsense"), IMAGE, ASKED), REFUSED),
    "a NUL in a head": (form(part("x\0y", b"a"), IMAGE, ASKED), REFUSED),
    "a file name upwards": (
        form(file_part(FINE_FILE, filename="../../etc/passwd"), ASKED),
        READ,
    ),
    "a file name of 100000 letters": (
        form(file_part(FINE_FILE, filename="a" * 100_000), ASKED),
        READ_OR_REFUSED,
    ),
    "an empty file name": (form(file_part(FINE_FILE, filename=""), ASKED), READ_OR_REFUSED),
    "another file's kind": (
        form(part("image", FINE_FILE, '; filename="a"\r\nContent-Type: text/html'), ASKED),
        READ,
    ),
    "a transfer encoding": (
        form(part("image", b"aaaa", '; filename="a"\r\nContent-Transfer-Encoding: base64'), ASKED),
        REFUSED,
    ),
    "a compressed part": (
        form(part("image", b"\x1f\x8b", '; filename="a"\r\nContent-Encoding: gzip'), ASKED),
        REFUSED,
    ),
    "a form within the form": (
        form(part("image", form(IMAGE), '; filename="a"\r\nContent-Type: ' + FORM), ASKED),
        REFUSED,
    ),
    "two files": (form(IMAGE, IMAGE, ASKED), REFUSED),
    "a thousand files": (form(*[IMAGE] * 1000, ASKED), REFUSED),
    "a file under another name": (form(IMAGE, file_part(b"a", "other"), ASKED), REFUSED),
    "questions as a file": (form(IMAGE, file_part(b"What?", "questions")), REFUSED),
    "the image as a data URL": (form(part("image", FINE_URL.encode()), ASKED), READ),
    "the image as an address": (
        form(part("image", b"http://127.0.0.1/a.png"), ASKED),
        REFUSED,
    ),
    "the image as a local file": (form(part("image", b"file:///etc/passwd"), ASKED), REFUSED),
    "the image twice as text": (
        form(part("image", FINE_URL.encode()), part("image", FINE_URL.encode()), ASKED),
        REFUSED,
    ),
    "an empty image": (form(file_part(b""), ASKED), REFUSED),
    "65 questions": (form(IMAGE, *[ASKED] * 65), REFUSED),
    "2000 questions": (form(IMAGE, *[ASKED] * 2000), REFUSED),
    "10000 other fields": (
        form(IMAGE, ASKED, *[part(f"a{i}", b"") for i in range(10_000)]),
        REFUSED,
    ),
    "an empty question": (form(IMAGE, part("questions", b"")), REFUSED),
    "a question that is no UTF-8": (form(IMAGE, part("questions", b"\xff\xfe")), READ_OR_REFUSED),
    "a question of 2 MB": (form(IMAGE, part("questions", b"word " * 400_000)), REFUSED),
    "questions as JSON": (form(IMAGE, part("questions", b'["a", "b"]')), READ_OR_REFUSED),
    "two modes": (form(IMAGE, ASKED, *[part("mode", b"force")] * 2), REFUSED),
    "an unknown mode": (form(IMAGE, ASKED, part("mode", b"forced")), REFUSED),
    "a mode as a file": (form(ASKED, file_part(b"force", "mode"), part("image", b"a")), REFUSED),
    "stats maybe": (form(IMAGE, ASKED, part("stats", b"maybe")), REFUSED),
    "stats yes": (form(IMAGE, ASKED, part("stats", b"yes")), READ_OR_REFUSED),
    "max_tokens in words": (form(IMAGE, ASKED, part("max_tokens", b"ten")), REFUSED),
    "max_tokens of 100000 digits": (
        form(IMAGE, ASKED, part("max_tokens", b"9" * 100_000)),
        REFUSED,
    ),
    "temperature nan": (form(IMAGE, ASKED, part("temperature", b"nan")), REFUSED),
    "temperature 1e999": (form(IMAGE, ASKED, part("temperature", b"1e999")), REFUSED),
    "a policy that is no JSON": (form(IMAGE, ASKED, part("policy", b"csp")), REFUSED),
    "a policy that is a list": (form(IMAGE, ASKED, part("policy", b"[]")), REFUSED),
    "a policy 100000 deep": (form(IMAGE, ASKED, part("policy", b"[" * 100_000)), REFUSED),
    "a policy of 10^5000": (
        form(IMAGE, ASKED, part("policy", b'{"policy": 1' + b"0" * 5000 + b"}")),
        REFUSED,
    ),
    "a policy of half a surrogate": (
        form(IMAGE, ASKED, part("policy", b'{"policy": "\\ud800"}')),
        REFUSED,
    ),
    "a knob of half a surrogate": (
        form(IMAGE, ASKED, part("policy", b'{"policy": "csp", "\\ud800": 1}')),
        REFUSED,
    ),
    "a policy of NaN": (
        form(IMAGE, ASKED, part("policy", b'{"policy": "resprune", "alpha": NaN}')),
        REFUSED,
    ),
    "a policy as a file": (form(ASKED, file_part(b"{}", "policy"), part("image", b"a")), REFUSED),
    "a name with brackets": (form(IMAGE, part("questions[]", QUESTION.encode())), REFUSED),
    "an unknown field": (form(IMAGE, ASKED, part("colour", b"red")), REFUSED),
    "a private field": (form(IMAGE, ASKED, part("__class__", b"x")), REFUSED),
}

KINDS: dict[str, tuple[str, frozenset[int]]] = {
    "no boundary": ("multipart/form-data", REFUSED),
    "an empty boundary": ("multipart/form-data; boundary=", REFUSED),
    "another boundary": ("multipart/form-data; boundary=other", REFUSED),
    "half the boundary": (f"multipart/form-data; boundary={BOUNDARY[:5]}", REFUSED),
    "a longer boundary": (f"multipart/form-data; boundary={BOUNDARY}x", REFUSED),
    "a quoted boundary": (f'multipart/form-data; boundary="{BOUNDARY}"', READ),
    "a boundary with half a quote": (f'multipart/form-data; boundary="{BOUNDARY}', READ_OR_REFUSED),
    "two boundaries": (f"multipart/form-data; boundary=x; boundary={BOUNDARY}", READ_OR_REFUSED),
    "a boundary of 60000 letters": ("multipart/form-data; boundary=" + "a" * 60_000, REFUSED),
    "a boundary beyond ASCII": ("multipart/form-data; boundary=\u00e4\u00f6", REFUSED),
    "a boundary with a charset": (f"{FORM}; charset=utf-16", READ_OR_REFUSED),
    "an unknown charset": (f"{FORM}; charset=no-such-charset", READ_OR_REFUSED),
    "a boundary in other letters": (f"Multipart/Form-Data; Boundary={BOUNDARY}", READ),
    "mixed": (f"multipart/mixed; boundary={BOUNDARY}", frozenset({415})),
    "JSON": ("application/json", REFUSED),
    "a form of letters": ("application/x-www-form-urlencoded", frozenset({415})),
}


def cases() -> dict[str, list[Case]]:
    """All of `/v1/segment`."""
    bodies = [
        Case(name, lambda content=content: content, SEGMENT, statuses, FORM)  # type: ignore[misc]
        for name, (content, statuses) in BODIES.items()
    ]
    kinds = [
        Case(f"kind: {name}", lambda: form(IMAGE, ASKED), SEGMENT, statuses, kind)
        for name, (kind, statuses) in KINDS.items()
    ]
    return {"forms": bodies + kinds}
