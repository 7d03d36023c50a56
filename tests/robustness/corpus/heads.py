"""Headers, methods and paths."""

from __future__ import annotations

from dataclasses import replace

from tests.robustness.case import (
    CHAT,
    CLOSED,
    READ,
    READ_OR_REFUSED,
    REFUSED,
    SEGMENT,
    AnyCase,
    Bytes,
    Case,
)
from tests.robustness.corpus.carriers import FINE_URL, chat_about, dumped, segment_about

GOOD = {CHAT: dumped(chat_about(FINE_URL)), SEGMENT: dumped(segment_about(FINE_URL))}
WRONG_KIND = frozenset({400, 415})
LOST = frozenset({400, CLOSED})
MOST_HEAD = frozenset({400, 431, 413, CLOSED})

KINDS: dict[str, tuple[str | None, frozenset[int]]] = {
    "none": (None, WRONG_KIND),
    "empty": ("", WRONG_KIND),
    "text": ("text/plain", WRONG_KIND),
    "JSON in other letters": ("Application/JSON", READ),
    "JSON with a charset": ("application/json; charset=utf-8", READ),
    "JSON with another charset": ("application/json; charset=utf-16", READ_OR_REFUSED),
    "JSON with an unknown charset": ("application/json; charset=none", READ_OR_REFUSED),
    "JSON lines": ("application/jsonl", WRONG_KIND),
    "JSON by suffix": ("application/vnd.api+json", READ_OR_REFUSED | {415}),
    "two kinds": ("application/json, text/plain", WRONG_KIND | {200}),
    "a slash": ("/", WRONG_KIND),
    "a semicolon": (";", WRONG_KIND),
    "10000 letters": ("a" * 10_000, WRONG_KIND | {431}),
    "beyond ASCII": ("application/js\u00f6n", WRONG_KIND),
}

HEADERS: dict[str, tuple[dict[str, str], frozenset[int]]] = {
    "a compressed body that is not": ({"Content-Encoding": "gzip"}, READ_OR_REFUSED | {415}),
    "an unknown encoding": ({"Content-Encoding": "x-none"}, READ_OR_REFUSED | {415}),
    "nothing accepted": ({"Accept": "image/png;q=1, */*;q=0"}, READ_OR_REFUSED),
    "accepting nonsense": ({"Accept": ";;;=,"}, READ_OR_REFUSED),
    "no such language": ({"Accept-Language": "\u00e4" * 100}, READ),
    "an empty id": ({"X-Request-Id": ""}, READ),
    "an id of 10000 letters": ({"X-Request-Id": "a" * 10_000}, READ_OR_REFUSED),
    "an id beyond ASCII": ({"X-Request-Id": "\u00e4\u00f6\u00fc"}, READ_OR_REFUSED),
    "an id with quotes": ({"X-Request-Id": "\"'`;--{}%s%n"}, READ_OR_REFUSED),
    "an id upwards": ({"X-Request-Id": "../../etc/passwd"}, READ_OR_REFUSED),
    "a rank": ({"X-data-parallel-rank": "7"}, READ_OR_REFUSED),
    "a rank of letters": ({"X-data-parallel-rank": "first"}, READ_OR_REFUSED),
    "a rank below 0": ({"X-data-parallel-rank": "-1"}, READ_OR_REFUSED),
    "a trace that is none": ({"traceparent": "00-zz-zz-zz", "tracestate": "=,="}, READ),
    "a load format": ({"endpoint-load-metrics-format": "no-such"}, READ),
    "a load format as text": ({"endpoint-load-metrics-format": "TEXT"}, READ),
    "another host": ({"Host": "169.254.169.254"}, READ),
    "a forwarded client": ({"X-Forwarded-For": "\u00e4, 1.2.3.4, ::1"}, READ),
    "another method by header": ({"X-HTTP-Method-Override": "DELETE"}, READ),
    "a range": ({"Range": "bytes=0-1"}, READ),
    "a condition": ({"If-None-Match": "*"}, READ),
    "a foreign origin": ({"Origin": "null"}, READ),
    "a cookie of 30000 letters": ({"Cookie": "a=" + "b" * 30_000}, READ_OR_REFUSED | {431}),
    "200 headers": ({f"X-{i}": "a" for i in range(200)}, READ_OR_REFUSED | {431}),
}

KEYS: dict[str, str] = {
    "wrong": "Bearer wrong",
    "empty": "",
    "no key": "Bearer",
    "no scheme": "a-key-of-the-tests",
    "another scheme": "Basic YTpi",
    "beyond ASCII": "Bearer \u00e4\u00f6\u00fc",
    "60000 letters": "Bearer " + "a" * 60_000,
    "a part of the key": "Bearer a-key",
    "the key and more": "Bearer a-key-of-the-tests-2",
}

UNFINISHED = frozenset(
    {
        *("length too large", "length 10^30", "length 10^11", "no body", "a head cut off"),
        *("chunks without end", "a chunk cut off", "the beginnings of TLS", "nothing at all"),
        *("a chunk of size 2^64", "lines without end", "HTTP/0.9"),
        "a chunk with an extension of 100000 letters",
    }
)

HEAD = "Host: {host}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"


def posted(path: str, more: str) -> str:
    """The head of a POST."""
    return f"POST {path} HTTP/1.1\r\n{HEAD}Connection: close\r\n{more}\r\n"


def spoken(path: str) -> dict[str, Bytes]:
    """HTTP as it should not be spoken, to one endpoint."""
    good = GOOD[path]()
    size = len(good)
    chunked = "Transfer-Encoding: chunked\r\n"
    whole = b"%x\r\n%s\r\n0\r\n\r\n" % (size, good)
    made = {
        "length too small": (posted(path, f"Content-Length: {size - 20}\r\n"), good, LOST),
        "length too large": (posted(path, f"Content-Length: {size + 99}\r\n"), good, LOST),
        "length 0": (posted(path, "Content-Length: 0\r\n"), good, LOST),
        "length -1": (posted(path, "Content-Length: -1\r\n"), good, LOST),
        "length in words": (posted(path, "Content-Length: ten\r\n"), good, LOST),
        "length with a plus": (posted(path, f"Content-Length: +{size}\r\n"), good, LOST),
        "length 10^30": (posted(path, f"Content-Length: 1{'0' * 30}\r\n"), good, LOST | {413}),
        "length 10^11": (posted(path, "Content-Length: 100000000000\r\n"), good, LOST | {413}),
        "two lengths": (
            posted(path, f"Content-Length: {size}\r\nContent-Length: 5\r\n"),
            good,
            LOST,
        ),
        "no length": (posted(path, ""), good, LOST),
        "length and chunks": (posted(path, f"Content-Length: 5\r\n{chunked}"), whole, LOST | {200}),
        "chunks": (posted(path, chunked), whole, READ),
        "chunks without end": (posted(path, chunked), whole[:-5], LOST),
        "a chunk cut off": (posted(path, chunked), whole[: size // 2], LOST),
        "a chunk longer than it says": (posted(path, chunked), b"5\r\n" + whole, LOST),
        "a chunk of size -1": (posted(path, chunked), b"-1\r\n" + whole, LOST),
        "a chunk of size 2^64": (posted(path, chunked), b"10000000000000000\r\n" + good, LOST),
        "a chunk of no number": (posted(path, chunked), b"zz\r\n" + good, LOST),
        "a chunk with an extension of 100000 letters": (
            posted(path, chunked),
            b"5;" + b"a" * 100_000 + b"\r\n",
            LOST,
        ),
        "10000 chunks of one byte": (
            posted(path, chunked),
            b"".join(b"1\r\n%c\r\n" % byte for byte in good) + b"0\r\n\r\n",
            READ,
        ),
        "an unknown transfer encoding": (
            posted(path, "Transfer-Encoding: x\r\n"),
            good,
            LOST | {501},
        ),
        "no body": (posted(path, f"Content-Length: {size}\r\n"), b"", LOST),
        "expecting nonsense": (
            posted(path, f"Expect: 200-ok\r\nContent-Length: {size}\r\n"),
            good,
            LOST | {200, 417},
        ),
        "a header without colon": (posted(path, "nonsense\r\n"), b"", LOST),
        "a header with a space in its name": (posted(path, "A B: c\r\n"), b"", LOST),
        "a header with a NUL": (posted(path, "A: b\0c\r\n"), b"", LOST),
        "a folded header": (
            posted(path, f"A: b\r\n c\r\nContent-Length: {size}\r\n"),
            good,
            LOST | {200},
        ),
        "a header of a megabyte": (posted(path, f"A: {'b' * (1 << 20)}\r\n"), b"", MOST_HEAD),
        "20000 headers": (posted(path, "A: b\r\n" * 20_000), b"", MOST_HEAD),
        "only line feeds": (
            posted(path, f"Content-Length: {size}\r\n").replace("\r\n", "\n"),
            good,
            LOST | {200},
        ),
        "no host": (
            posted(path, f"Content-Length: {size}\r\n").replace("Host: {host}\r\n", ""),
            good,
            LOST | {200},
        ),
        "HTTP/1.0": (
            posted(path, f"Content-Length: {size}\r\n").replace("HTTP/1.1", "HTTP/1.0"),
            good,
            LOST | {200},
        ),
        "HTTP/0.9": (f"POST {path}\r\n", b"", LOST),
        "HTTP/9.9": (posted(path, "").replace("HTTP/1.1", "HTTP/9.9"), b"", LOST),
        "HTTP/2": ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"", LOST | {404, 401}),
        "an unknown protocol": (posted(path, "").replace("HTTP/1.1", "SMTP/1.1"), b"", LOST),
        "an unknown method": (
            posted(path, "").replace("POST", "BREW"),
            b"",
            LOST | {405},
        ),
        "a head cut off": (posted(path, "Content-Le")[:-6], b"", LOST),
        "the beginnings of TLS": ("\x16\x03\x01\x02\x00\x01\x00", b"\x01\xfc\x03\x03", LOST),
        "nothing at all": ("", b"", LOST),
        "lines without end": ("\r\n" * 1000, b"", LOST),
    }
    return {
        name: Bytes(name, *parts, unfinished=name in UNFINISHED) for name, parts in made.items()
    }


PATHS: dict[str, tuple[str, str, frozenset[int]]] = {
    "GET": ("GET", "{path}", frozenset({405})),
    "PUT": ("PUT", "{path}", frozenset({405})),
    "PATCH": ("PATCH", "{path}", frozenset({405})),
    "DELETE": ("DELETE", "{path}", frozenset({405})),
    "HEAD": ("HEAD", "{path}", frozenset({405})),
    "OPTIONS": ("OPTIONS", "{path}", frozenset({200, 405})),
    "a slash at the end": ("POST", "{path}/", frozenset({307, 404})),
    "two slashes": ("POST", "/{path}", frozenset({404})),
    "upper case": ("POST", "{PATH}", frozenset({404, 401})),
    "upwards": ("POST", "{path}/../../etc/passwd", frozenset({404, 401})),
    "upwards, encoded": ("POST", "{path}/%2e%2e/%2e%2e/etc/passwd", frozenset({404})),
    "the page upwards": ("GET", "/v1/segment/ui/../../../etc/passwd", frozenset({404, 401})),
    "the page upwards, encoded": ("GET", "/v1/segment/ui/%2e%2e%2fshell.py", frozenset({404})),
    "no file of the page": ("GET", "/v1/segment/ui/no-such-file", frozenset({404})),
    "a question mark": ("POST", "{path}?mode=generate&image=a", READ),
    "a query of 60000 letters": ("POST", "{path}?" + "a" * 60_000, READ_OR_REFUSED | {414}),
    "a NUL, encoded": ("POST", "{path}%00", frozenset({404})),
    "no UTF-8, encoded": ("POST", "{path}%ff%fe", frozenset({404})),
}


def cases() -> dict[str, list[AnyCase]]:
    """For both endpoints."""
    heads: list[AnyCase] = []
    keys: list[AnyCase] = []
    talk: list[AnyCase] = []
    for path, word in ((CHAT, "chat"), (SEGMENT, "call")):
        good = GOOD[path]
        heads += [
            Case(f"{word}: kind: {name}", good, path, statuses, kind)
            for name, (kind, statuses) in KINDS.items()
        ]
        heads += [
            Case(f"{word}: {name}", good, path, statuses, headers=headers)
            for name, (headers, statuses) in HEADERS.items()
        ]
        for name, (method, address, statuses) in PATHS.items():
            target = address.replace("{path}", path).replace("{PATH}", path.upper())
            heads.append(Case(f"{word}: {name}", good, target, statuses, method=method))
        unknown = frozenset({401, 400, 431})
        keys.append(Case(f"{word}: none", good, path, frozenset({401}), authorised=False))
        keys += [
            Case(
                f"{word}: {name}",
                good,
                path,
                unknown,
                headers={"Authorization": key},
                authorised=False,
            )
            for name, key in KEYS.items()
        ]
        for name, one in spoken(path).items():
            talk.append(replace(one, name=f"{word}: {name}"))
    return {"headers": heads, "keys": keys, "HTTP": talk}


__all__ = ["REFUSED", "cases"]
