"""Bodies that are no JSON, or JSON that few parsers agree about."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.robustness.case import CHAT, READ_OR_REFUSED, REFUSED, SEGMENT, Case
from tests.robustness.corpus.carriers import FINE_URL, chat_about, segment_about

BASES = {CHAT: chat_about(FINE_URL), SEGMENT: segment_about(FINE_URL)}

PLAIN: dict[str, bytes] = {
    "nothing": b"",
    "a space": b" ",
    "null": b"null",
    "true": b"true",
    "a number": b"1",
    "a text": b'"text"',
    "a list": b"[]",
    "a list of an object": b"[{}]",
    "an empty object": b"{}",
    "an object cut off": b'{"model":',
    "a text cut off": b'{"model": "lis',
    "an escape cut off": b'{"model": "\\u12',
    "an unknown escape": b'{"model": "\\x41"}',
    "a key without value": b'{"model"}',
    "a number as key": b"{1: 2}",
    "single quotes": b"{'model': 'lisa'}",
    "a comma at the end": b'{"model": "lisa",}',
    "a comment": b'{"model": "lisa" /* the model */}',
    "Python's None": b'{"model": None}',
    "undefined": b'{"model": undefined}',
    "two documents": b'{"model": "lisa"} {"model": "lisa"}',
    "lines of JSON": b'{"model": "lisa"}\n{"model": "lisa"}\n',
    "a leading zero": b'{"max_tokens": 01}',
    "a plus": b'{"max_tokens": +1}',
    "hexadecimal": b'{"max_tokens": 0x10}',
    "a dot alone": b'{"temperature": .}',
    "no UTF-8": b"\xff\xfe",
    "UTF-16": '{"model": "lisa"}'.encode("utf-16"),
    "UTF-32": '{"model": "lisa"}'.encode("utf-32"),
    "Latin-1": '{"model": "l\u00eesa"}'.encode("latin-1"),
    "overlong UTF-8": b'{"model": "\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"model": "\xed\xa0\x80"}',
    "UTF-8 beyond Unicode": b'{"model": "\xf7\xbf\xbf\xbf"}',
    "UTF-8 cut off": b'{"model": "\xe2\x82"}',
    "a line end within a text": b'{"model": "a\nb"}',
    "a NUL within a text": b'{"model": "a\0b"}',
    "a NUL at the end": b'{"model": "lisa"}\0',
    "XML": b"<?xml version='1.0'?><model>lisa</model>",
    "YAML": b"model: lisa\n",
    "a form": b"model=lisa&image=a",
    "gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\x03",
    "100000 brackets": b"[" * 100_000,
    "100000 braces": b'{"a":' * 100_000,
    "100000 closed brackets": b"[" * 100_000 + b"]" * 100_000,
    "a number of 100000 digits": b'{"max_tokens": ' + b"9" * 100_000 + b"}",
    "a text of a megabyte": b'{"model": "' + b"a" * (1 << 20) + b'"}',
    "a key of a megabyte": b'{"' + b"a" * (1 << 20) + b'": 1}',
    "100000 keys": json.dumps({f"key{i}": i for i in range(100_000)}).encode(),
    "a list of 100000": b"[" + b"0," * 100_000 + b"0]",
}

# Put behind the first brace of a good body.
INSERTED: dict[str, tuple[bytes, frozenset[int]]] = {
    "NaN": (b'"temperature": NaN', READ_OR_REFUSED),
    "Infinity": (b'"temperature": Infinity', READ_OR_REFUSED),
    "-Infinity": (b'"temperature": -Infinity', READ_OR_REFUSED),
    "1e999": (b'"temperature": 1e999', READ_OR_REFUSED),
    "1e-999": (b'"temperature": 1e-999', READ_OR_REFUSED),
    "-0": (b'"max_tokens": -0', READ_OR_REFUSED),
    "a whole number with a fraction": (b'"max_tokens": 1.0', READ_OR_REFUSED),
    "a fraction": (b'"max_tokens": 1.5', READ_OR_REFUSED),
    "2^63": (b'"max_tokens": 9223372036854775808', READ_OR_REFUSED),
    "10^400": (b'"max_tokens": 1' + b"0" * 400, READ_OR_REFUSED),
    "10^5000": (b'"max_tokens": 1' + b"0" * 5000, READ_OR_REFUSED),
    "the same key twice": (b'"model": "another", "model": "third"', READ_OR_REFUSED),
    "the same options twice": (b'"mode": "x", "segmentation": 5', READ_OR_REFUSED),
    "a thousand times the same key": (
        b",".join([b'"temperature": 0'] * 1000),
        READ_OR_REFUSED,
    ),
    "an empty key": (b'"": 1', READ_OR_REFUSED),
    "a prototype": (b'"__proto__": {"mode": "force"}', READ_OR_REFUSED),
    "a class": (b'"__class__": "x", "__dict__": {}', READ_OR_REFUSED),
    "a private field": (b'"_answer": {"forced": true}', READ_OR_REFUSED),
    "half a surrogate as key": (b'"\\ud800": 1', READ_OR_REFUSED),
    "half a surrogate as model": (b'"model": "\\ud800"', READ_OR_REFUSED),
    "a NUL as model": (b'"model": "\\u0000"', READ_OR_REFUSED),
    "a model of a megabyte": (b'"model": "' + b"a" * (1 << 20) + b'"', READ_OR_REFUSED),
    "an unknown field 1000 deep": (b'"a": ' + b"[" * 500 + b"]" * 500, READ_OR_REFUSED),
    "an unknown field 100000 deep": (b'"a": ' + b"[" * 100_000 + b"]" * 100_000, REFUSED),
}


def fixed(content: bytes) -> Callable[[], bytes]:
    """These bytes."""
    return lambda: content


def with_more(path: str, more: bytes) -> Callable[[], bytes]:
    """A good body that begins with these fields."""
    base = json.dumps(BASES[path]).encode()
    return lambda: b"{" + more + b", " + base[1:]


def with_last(path: str, more: bytes) -> Callable[[], bytes]:
    """A good body that ends with these fields, which win where a key is repeated."""
    base = json.dumps(BASES[path]).encode()
    return lambda: base[:-1] + b", " + more + b"}"


def cases() -> dict[str, list[Case]]:
    """For both endpoints."""
    plain, inserted = [], []
    for path, word in ((CHAT, "chat"), (SEGMENT, "call")):
        plain += [Case(f"{word}: {name}", fixed(content), path) for name, content in PLAIN.items()]
        for name, (more, statuses) in INSERTED.items():
            allowed = statuses | {404} if "model" in name or "key" in name else statuses
            inserted.append(Case(f"{word}: {name} first", with_more(path, more), path, allowed))
            inserted.append(Case(f"{word}: {name} last", with_last(path, more), path, allowed))
        mark = b"\xef\xbb\xbf" + json.dumps(BASES[path]).encode()
        inserted.append(Case(f"{word}: a byte order mark", fixed(mark), path, READ_OR_REFUSED))
    return {"documents": plain, "JSON's corners": inserted}
