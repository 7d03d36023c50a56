"""The line of a request, and its id."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest

from tests.server import wait_until
from tests.serving.guard.app import Guarded, guarded
from tests.serving.guard.test_bodies import talk
from vllm_csp.serving.logs.writer import RequestLogWriter, loggable_path, text_line


@pytest.fixture(scope="module")
def app() -> Iterator[Guarded]:
    with guarded(max_body_mb=1) as running:
        yield running


def last_line(app: Guarded, count: int) -> dict[str, object]:
    wait_until(lambda: len(app.lines.written) > count, 5, "a line is written")
    return app.lines.written[-1]


def test_it_says_what_was_asked_and_answered(app: Guarded) -> None:
    count = len(app.lines.written)
    reply = httpx.post(f"{app.url}/size?secret=1", content=b"abc", headers={"X-Request-Id": "mine"})
    assert reply.headers.get_list("x-request-id") == ["mine"]
    line = last_line(app, count)
    assert 0 <= line.pop("seconds") < 5  # type: ignore[operator]
    assert line == {
        "request_id": "mine",
        "method": "POST",
        "path": "/size",
        "status": 200,
        "questions": 0,
        "masks": 0,
        "bytes_in": 3,
        "bytes_out": 1,
        "aborted": False,
    }


def test_refused_requests_have_one_too(app: Guarded) -> None:
    count = len(app.lines.written)
    reply = httpx.post(f"{app.url}/size", content=bytes(1 << 21))
    line = last_line(app, count)
    assert (line["status"], line["request_id"]) == (413, reply.headers["x-request-id"])


@pytest.mark.parametrize(
    "given",
    ["", "a b", "a" * 129, "ä", "-a", "a\tb", 'a"b', "<script>", "{}", "a,b", "../../etc"],
)
def test_an_id_that_does_no_good_is_replaced(app: Guarded, given: str) -> None:
    headers = {"X-Request-Id": given.encode("utf-8")}
    answered = httpx.post(f"{app.url}/size", headers=headers).headers["x-request-id"]
    assert answered != given
    assert len(answered) == 32


@pytest.mark.parametrize("given", ["a", "a" * 128, "5f0c:1.2-3_4", "seg-0"])
def test_a_good_one_is_kept(app: Guarded, given: str) -> None:
    reply = httpx.post(f"{app.url}/size", headers={"X-Request-Id": given})
    assert reply.headers["x-request-id"] == given


def test_of_two_ids_none_is_kept(app: Guarded) -> None:
    head = b"POST /size HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\r\nX-Request-Id: b\r\n"
    received = talk(app, head + b"Connection: close\r\nContent-Length: 0\r\n\r\n")
    [line] = [one for one in received.split(b"\r\n") if one.lower().startswith(b"x-request-id")]
    assert len(line.partition(b": ")[2]) == 32


def test_paths_are_made_harmless() -> None:
    assert loggable_path("/v1/a b\n\x1b[31m{}") == "/v1/a?b??[31m{}"
    assert len(loggable_path("/" + "a" * 1000)) == 200


def test_json_lines_are_objects_by_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    RequestLogWriter("json").write({"path": 'a"b\\', "status": None})
    [line] = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found.pop("time").endswith("Z")
    assert found == {"level": "info", "event": "request", "path": 'a"b\\', "status": None}


def test_a_text_line_has_what_has_a_value() -> None:
    line = text_line({"request_id": "a", "masks": 0, "aborted": False, "model": None})
    assert line == "request request_id=a masks=0"
