"""Failures on the way: what passes is tried again, what does not is recorded, the rest goes on."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server
from tests.serving.batch.conftest import Undisturbed
from tests.serving.batch.proxy import Fault, Proxy, proxy_of
from tests.serving.batch.rows import QUESTION, question_rows, write_lines, write_photos
from tests.serving.batch.tool import ask, assert_same_answers, by_id, read_lines, run
from vllm_csp.serving.client import chat_body
from vllm_csp.serving.server import free_port


def rows_about(tmp_path: Path, *questions: str) -> Path:
    [photo] = write_photos(tmp_path, 1)
    rows = [
        {"custom_id": name, "image": photo, "question": name, "mode": "force"} for name in questions
    ]
    return write_lines(tmp_path / "in.jsonl", rows)


def test_failures_that_pass_leave_no_trace(
    proxy: Proxy, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Too many requests, overload, silence and lost connections; some rows several times."""
    proxy.faults = {
        "object 1 ": [Fault(429, retry_after="2")],
        "object 2 ": [Fault(503)] * 3,
        "object 3 ": [Fault(hang=True)],
        "object 4 ": [Fault(drop=True)],
        "object 5 ": [Fault(502), Fault(429), Fault(504), Fault(500)],
    }
    started = time.monotonic()
    done = ask(proxy.url, undisturbed.source, tmp_path / "out.jsonl", "--timeout", 10)
    assert done.code == 0, done.messages
    assert done.summary["retries"] >= 10
    assert time.monotonic() - started > 10
    assert_same_answers(tmp_path / "out.jsonl", undisturbed.answers)


def test_a_row_that_keeps_failing_is_recorded_and_asked_again_on_resume(
    proxy: Proxy, tmp_path: Path
) -> None:
    source = rows_about(tmp_path, "one", "two", "three")
    proxy.faults = {"two": [Fault(503)] * 3}
    done = ask(proxy.url, source, tmp_path / "out.jsonl", "--retries", 2)
    assert (done.code, done.summary["failures"]) == (1, {"http_503": 1})
    failed = by_id(tmp_path / "out.jsonl")["two"]
    assert failed["error"] == {"code": "http_503", "message": "made up by the proxy"}
    assert failed["response"]["status_code"] == 503
    again = ask(proxy.url, source, tmp_path / "out.jsonl", "--resume")
    assert (again.code, again.summary["answered"], again.summary["answered_earlier"]) == (0, 1, 2)
    assert all(line["error"] is None for line in by_id(tmp_path / "out.jsonl").values())
    assert proxy.asked["two"] == 4


def test_a_pause_that_was_asked_for_is_kept(proxy: Proxy, tmp_path: Path) -> None:
    proxy.faults = {"one": [Fault(429, retry_after="3")]}
    done = ask(proxy.url, rows_about(tmp_path, "one"), tmp_path / "out.jsonl")
    assert done.code == 0, done.messages
    first, second = proxy.times
    assert 3 <= second - first < 10


def test_a_row_that_kills_the_server_takes_no_other_along(proxy: Proxy, tmp_path: Path) -> None:
    """Such a row is sent alone after two deaths, and given up after four."""
    [photo] = write_photos(tmp_path, 1)
    rows = question_rows([photo], 10)
    rows[3]["question"] = "the poison"
    proxy.faults = {"the poison": [Fault(drop_all=True)] * 20}
    source = write_lines(tmp_path / "in.jsonl", rows)
    done = ask(proxy.url, source, tmp_path / "out.jsonl")
    assert (done.code, done.summary["failures"]) == (1, {"connection_lost": 1})
    assert done.summary["answered"] == 9
    assert by_id(tmp_path / "out.jsonl")["row 3"]["error"]["code"] == "connection_lost"
    assert proxy.asked["the poison"] == 4


def test_rows_that_cannot_be_answered_do_not_stop_the_others(
    server: Server, tmp_path: Path
) -> None:
    [photo] = write_photos(tmp_path, 1)
    (tmp_path / "broken.png").write_bytes(b"no image")
    fine = {"image": photo, "question": QUESTION, "mode": "force"}
    rows: list[Any] = [
        {"custom_id": "no file", "image": "absent.png", "question": QUESTION},
        {"custom_id": "no image", **fine, "image": "broken.png"},
        b"{no JSON",
        {"custom_id": "no model", "body": {"model": "another", "messages": []}},
        {"custom_id": "fine", **fine},
        {"custom_id": "fine", **fine},
        {"custom_id": "no path", **fine, "image": "a\0.png"},
        {"custom_id": "no address", **fine, "image": "file://[x"},
        {"custom_id": "no text", "body": chat_body("data:\ud800", QUESTION)},
        json.dumps({"custom_id": "a nest", "body": {**chat_body(photo, QUESTION), "tools": "NEST"}})
        .replace('"NEST"', "[" * 700 + "]" * 700)
        .encode(),
    ]
    source = write_lines(tmp_path / "in.jsonl", rows)
    done = ask(server, source, tmp_path / "out.jsonl")
    assert done.code == 1
    assert done.summary["failures"] == {
        "image_not_read": 3,
        "http_400": 2,
        "bad_line": 2,
        "http_404": 1,
        "duplicate_custom_id": 1,
    }
    lines = read_lines(tmp_path / "out.jsonl")
    assert len(lines) == 10
    reasons = {line["input"]["place"]: (line["error"] or {}).get("message") for line in lines}
    assert "absent.png: No such file" in reasons[1]
    assert "cannot identify image" in reasons[2]
    assert "line 3 is not JSON" in reasons[3]
    assert "`another` does not exist" in reasons[4]
    assert reasons[5] is None
    assert "'fine' was used before, at row 5" in reasons[6]
    assert "null byte" in reasons[7]
    assert "file://[x: No such file" in reasons[8]
    assert "within each other" in reasons[10]


def test_one_of_two_servers_may_be_away(
    server: Server, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    absent = f"http://127.0.0.1:{free_port()}"
    done = ask(server, undisturbed.source, tmp_path / "out.jsonl", "--base-url", absent)
    assert done.code == 0, done.messages
    assert f"{absent} does not answer yet" in done.messages
    assert_same_answers(tmp_path / "out.jsonl", undisturbed.answers)


def test_images_go_round_among_servers(
    server: Server, proxy: Proxy, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """All rows about one image go to the same server."""
    proxy.faults = {f"object {number} ": [] for number in range(24)}
    with proxy_of(server.url) as other:
        other.faults = {f"object {number} ": [] for number in range(24)}
        options = ["--base-url", other.url, "--concurrency", 2]
        done = ask(proxy.url, undisturbed.source, tmp_path / "out.jsonl", *options)
        assert done.code == 0, done.messages
        shares = [{int(word.split()[1]) % 6 for word in one.asked} for one in (proxy, other)]
        assert sorted(map(len, shares)) == [3, 3]
        assert shares[0].isdisjoint(shares[1])
        assert max(proxy.most_at_once, other.most_at_once) <= 2


def test_without_a_server_all_rows_fail_in_time(tmp_path: Path) -> None:
    source = rows_about(tmp_path, *(f"row {number}" for number in range(200)))
    started = time.monotonic()
    absent = f"http://127.0.0.1:{free_port()}"
    options = ["--base-url", absent, "--patience", 2, "--concurrency", 4]
    done = run(source, tmp_path / "out.jsonl", *options)
    assert time.monotonic() - started < 60
    assert (done.code, done.summary["failures"]) == (1, {"server_unreachable": 200})
    assert len(by_id(tmp_path / "out.jsonl")) == 200


@pytest.mark.parametrize("existing", ["out.jsonl", "out.json", "out.json.journal.jsonl"])
def test_an_output_that_exists_is_not_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    source = rows_about(tmp_path, "one")
    output = tmp_path / existing.removesuffix(".journal.jsonl")
    done = run(source, output, "--base-url", "http://127.0.0.1:1")
    assert done.code == 2
    assert "exists: add --resume" in done.messages
    resumed = run(source, output, "--base-url", "http://127.0.0.1:1", "--resume")
    assert resumed.code == 2
    assert "choose another output" in resumed.messages
    assert (tmp_path / existing).read_text() == "precious"


def test_a_wrong_key_ends_the_run_before_the_first_row(server: Server, tmp_path: Path) -> None:
    source = rows_about(tmp_path, "one")
    done = run(source, tmp_path / "out.jsonl", "--base-url", server.url, "--api-key", "wrong")
    assert done.code == 2
    assert "refuses the key: give --api-key" in done.messages
    assert not (tmp_path / "out.jsonl").exists()


USAGE = {
    "the input as output": (["in.jsonl", "in.jsonl"], "is the input"),
    "no folder": (["in.jsonl", "absent/out.jsonl"], "is no folder: make it first"),
    "an unknown suffix": (["in.jsonl", "out.csv"], "cannot tell the format"),
    "no rows": (["empty.jsonl", "out.jsonl"], "has no rows"),
    "no URL": (["in.jsonl", "out.jsonl", "--base-url", "localhost:1"], "is no URL such as"),
    "no ids": ([".", "out.json", "-q", "?", "--format", "coco-results"], "--format coco"),
    "masks among photos": ([".", "masks", "-q", "?"], "masks among the photos"),
    "masks that a pattern finds": (["**/*.png", "masks", "-q", "?"], "masks among the photos"),
    "an unknown policy": (["in.jsonl", "out.jsonl", "--policy", "x"], "policy"),
    "an odd size": (["in.jsonl", "out.jsonl", "--sam-image-size", "500"], "multiple of 64"),
    "another's policy": (
        ["in.jsonl", "out.jsonl", "--policy", "csp", "--base-url", "http://127.0.0.1:1"],
        "leave them or --base-url out",
    ),
    "two sources of settings": (
        ["in.jsonl", "out.jsonl", "--policy", "csp", "--server-flags", "--additional-config {}"],
        "give all settings as flags, or all",
    ),
}


@pytest.mark.parametrize(("arguments", "reason"), USAGE.values(), ids=USAGE)
def test_what_cannot_work_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], reason: str
) -> None:
    rows_about(tmp_path, "one")
    (tmp_path / "empty.jsonl").touch()
    monkeypatch.chdir(tmp_path)
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    local = (
        []
        if {"--base-url", "--policy", "--sam-image-size"} & set(arguments)
        else ["--base-url", "http://127.0.0.1:1"]
    )
    done = run(*arguments, *local)
    assert done.code == 2, done.messages
    assert reason in done.messages
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before
