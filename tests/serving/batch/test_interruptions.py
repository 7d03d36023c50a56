"""Runs that are killed or stopped go on from there: every row once, as if nothing had been."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from tests.server import Server, wait_until
from tests.serving.batch.conftest import NUM_ROWS, Undisturbed
from tests.serving.batch.proxy import Fault, Proxy
from tests.serving.batch.tool import (
    SECONDS,
    ask,
    assert_same_answers,
    at,
    finish,
    kill_after,
    read_lines,
    start,
)
from vllm_csp.serving.batch.formats.choice import WRITERS, OutputFormat


def kill_and_resume(
    server: Server, proxy: Proxy, undisturbed: Undisturbed, folder: Path, seed: int
) -> None:
    chance = random.Random(seed)
    output = folder / "out.json"
    journal = folder / "out.json.journal.jsonl"
    # One row waits for minutes, so that no run is over before it is killed.
    proxy.faults = {"object 0 ": [Fault(503, retry_after="500")]}
    options = [undisturbed.source, output, *at(proxy.url), "--concurrency", 4]
    lines = chance.randint(1, NUM_ROWS - 8)
    kill_after(start(*options), journal, lines, chance.uniform(0, 0.2))
    assert not output.exists()
    before = {line["custom_id"] for line in read_lines(journal)}
    # As a crash amid writing leaves it.
    torn = chance.choice([b"", b'{"id":"batch', b'{"id":"batch_req_1","custom_id":"row 0"'])
    with journal.open("ab") as file:
        file.write(torn)
    done = ask(server, undisturbed.source, output, "--resume", "--concurrency", 4)
    assert done.code == 0, done.messages
    assert done.summary["answered_earlier"] == len(before) >= lines
    assert done.summary["answered"] == NUM_ROWS - len(before)
    assert_same_answers(journal, undisturbed.answers)
    again = folder / "again.json"
    WRITERS[OutputFormat.COCO](journal, again)
    assert again.read_bytes() == output.read_bytes()


@pytest.mark.parametrize("seed", range(3))
def test_killed_and_resumed(
    server: Server, proxy: Proxy, undisturbed: Undisturbed, tmp_path: Path, seed: int
) -> None:
    kill_and_resume(server, proxy, undisturbed, tmp_path, seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3, 13))
def test_killed_and_resumed_at_more_places(
    server: Server, proxy: Proxy, undisturbed: Undisturbed, tmp_path: Path, seed: int
) -> None:
    kill_and_resume(server, proxy, undisturbed, tmp_path, seed)


@pytest.mark.slow
def test_killed_again_and_again(server: Server, undisturbed: Undisturbed, tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    for more in (2, 6, 11, 15):
        options = [undisturbed.source, output, *at(server), "--concurrency", 2, "--resume"]
        kill_after(start(*options), output, more, 0.1)
    assert ask(server, undisturbed.source, output, "--resume").code == 0
    assert_same_answers(output, undisturbed.answers)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_answers_what_is_on_its_way_and_resumes(
    proxy: Proxy, undisturbed: Undisturbed, tmp_path: Path, number: signal.Signals
) -> None:
    output = tmp_path / "out.jsonl"
    # A row that waits for minutes must not hold up the end.
    proxy.faults = {"object 0 ": [Fault(503, retry_after="500")], "object": []}
    options = [undisturbed.source, output, *at(proxy.url), "--concurrency", 3]
    process = start(*options)
    wait_until(lambda: len(read_lines(output)) >= 4, SECONDS, "some rows are answered")
    process.send_signal(number)
    done = finish(process)
    assert done.code == 1
    assert "the same command with --resume goes on" in done.messages
    answered = read_lines(output)
    assert done.summary["answered"] == len(answered)
    assert done.summary["not_asked"] == NUM_ROWS - len(answered) > 0
    # Nothing was asked in vain but the row that was refused.
    assert proxy.asked["object 0 "] + proxy.asked["object"] == len(answered) + 1
    proxy.faults = {}
    resumed = ask(proxy.url, undisturbed.source, output, "--resume")
    assert resumed.code == 0, resumed.messages
    assert_same_answers(output, undisturbed.answers)
