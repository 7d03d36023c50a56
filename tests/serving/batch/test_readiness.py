"""Servers that answer but cannot work: asked nothing until they are ready, others take over."""

from __future__ import annotations

import time
from pathlib import Path

from tests.server import Server, wait_until
from tests.serving.batch.conftest import NUM_ROWS, Undisturbed
from tests.serving.batch.proxy import Fault, Proxy, proxy_of
from tests.serving.batch.rows import QUESTION, write_lines, write_photos
from tests.serving.batch.tool import SECONDS, ask, assert_same_answers, at, finish, start

DRAINING = {"/ready": 503}
WITHOUT_OUR_ROUTES = {"/ready": 404}
ON_THEIR_WAY = 4


def test_a_server_that_drains_is_sent_nothing_more(
    server: Server, proxy: Proxy, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Its `/health` is 200 all the while."""
    proxy.statuses = DRAINING
    proxy.faults = {"object": [Fault(503)] * NUM_ROWS}
    with proxy_of(server.url) as other:
        options = ["--base-url", other.url, "--concurrency", 1, "--retries", 1]
        done = ask(proxy.url, undisturbed.source, tmp_path / "out.jsonl", *options)
    assert done.code == 0, done.messages
    assert proxy.asked["object"] == 1
    assert_same_answers(tmp_path / "out.jsonl", undisturbed.answers)


def test_a_server_is_asked_again_once_it_is_ready(
    proxy: Proxy, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    proxy.statuses = DRAINING
    proxy.faults = {"object 0 ": [Fault(503)], "object": []}
    tool = start(
        undisturbed.source, tmp_path / "out.jsonl", *at(proxy.url), "--concurrency", ON_THEIR_WAY
    )
    wait_until(lambda: proxy.asked["object 0 "] == 1, SECONDS, "the server has refused a row")
    time.sleep(3)
    assert proxy.asked.total() <= ON_THEIR_WAY
    proxy.statuses = {}
    done = finish(tool)
    assert done.code == 0, done.messages
    assert_same_answers(tmp_path / "out.jsonl", undisturbed.answers)


def test_of_a_server_without_our_routes_the_health_counts(
    proxy: Proxy, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    proxy.statuses = WITHOUT_OUR_ROUTES
    proxy.faults = {"object 3 ": [Fault(503)] * 2}
    options = ["--patience", 20]
    done = ask(proxy.url, undisturbed.source, tmp_path / "out.jsonl", *options)
    assert done.code == 0, done.messages
    assert_same_answers(tmp_path / "out.jsonl", undisturbed.answers)


def test_a_row_that_was_refused_goes_to_another_server(
    server: Server, proxy: Proxy, tmp_path: Path
) -> None:
    """Also when the one that refused it says that it is ready. Both refuse it once."""
    [photo] = write_photos(tmp_path, 1)
    rows = [{"custom_id": "one", "image": photo, "question": QUESTION, "mode": "force"}]
    source = write_lines(tmp_path / "in.jsonl", rows)
    with proxy_of(server.url) as other:
        for number, status in enumerate((429, 503)):
            for one in (proxy, other):
                one.faults = {"helmet": [Fault(status)]}
                one.asked.clear()
            options = ["--base-url", other.url, "--retries", 2]
            done = ask(proxy.url, source, tmp_path / f"out-{number}.jsonl", *options)
            assert done.code == 0, done.messages
            assert sorted((proxy.asked["helmet"], other.asked["helmet"])) == [1, 2]
