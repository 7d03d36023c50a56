"""The server that the tool starts: restarted when it dies, gone when the tool is."""

from __future__ import annotations

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.processes import children, command, lives
from tests.server import wait_until
from tests.serving.batch.conftest import Undisturbed
from tests.serving.batch.tool import (
    SECONDS,
    assert_same_answers,
    finish,
    kill_after,
    read_lines,
    start,
)

FLAGS = (
    "--dtype float32 --enforce-eager --max-model-len 1024 --max-num-seqs 32 "
    "--kv-cache-memory-bytes 33554432"
)


def options(oracle: Path, source: Path, output: Path) -> list[object]:
    checkpoint = str(oracle / "checkpoint")
    flags = ["-c", checkpoint, "--server-flags", FLAGS, "--concurrency", 2]
    return [source, output, *flags]


def has_lines(file: Path, count: int) -> bool:
    return len(read_lines(file)) >= count


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("seed", "deaths"),
    [(0, 1), *(pytest.param(seed, 5, marks=pytest.mark.slow) for seed in (1, 2))],
)
def test_a_server_that_dies_is_started_again(
    oracle: Path, undisturbed: Undisturbed, tmp_path: Path, seed: int, deaths: int
) -> None:
    chance = random.Random(seed)
    output = tmp_path / "out.jsonl"
    tool = start(*options(oracle, undisturbed.source, output))
    for _ in range(deaths):
        lines = len(read_lines(output)) + chance.randint(1, 2)
        wait_until(partial(has_lines, output, lines), SECONDS, f"{lines} rows are answered")
        time.sleep(chance.uniform(0, 0.2))
        [server] = children(tool.pid)
        for number in [*children(server), server]:
            os.kill(number, signal.SIGKILL)
    done = finish(tool)
    assert done.code == 0, done.messages
    # The last one may have died when nothing was left to ask.
    assert deaths - 1 <= done.summary["server_restarts"] <= deaths
    assert_same_answers(output, undisturbed.answers)


@pytest.mark.slow
def test_a_killed_tool_takes_its_server_along_and_resumes(
    oracle: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    tool = start(*options(oracle, undisturbed.source, output))
    wait_until(lambda: bool(read_lines(output)), SECONDS, "a row is answered")
    [server] = children(tool.pid)
    engines = children(server)
    kill_after(tool, output, 3, 0)
    wait_until(lambda: not any(map(lives, [server, *engines])), 60, "the server has ended")
    done = finish(start(*options(oracle, undisturbed.source, output), "--resume"))
    assert done.code == 0, done.messages
    assert_same_answers(output, undisturbed.answers)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_server_that_is_stuck_is_started_again(
    oracle: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Its engine stands still: `/health` stays 200, and it cannot end by itself."""
    output = tmp_path / "out.jsonl"
    settings = '{"csp": {"server": {"probe_seconds": 1, "stuck_seconds": 3}}}'
    flags = f"{FLAGS} --additional-config '{settings}'"
    arguments = ["-c", oracle / "checkpoint", "--server-flags", flags, "--concurrency", 2]
    tool = start(undisturbed.source, output, *arguments, "--timeout", 10)
    wait_until(partial(has_lines, output, 3), SECONDS, "3 rows are answered")
    [server] = children(tool.pid)
    [engine] = [one for one in children(server) if "EngineCore" in command(one)]
    os.kill(engine, signal.SIGSTOP)
    done = finish(tool, 4 * SECONDS)
    assert done.code == 0, done.messages
    assert done.summary["server_restarts"] == 1
    assert not lives(server) and not lives(engine)
    assert_same_answers(output, undisturbed.answers)


def test_a_server_that_takes_too_long_to_start_is_told(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"custom_id": "a", "image": "a.png", "question": "?"}')
    tool = start(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--start-seconds", 1)
    done = finish(tool)
    assert done.code == 1
    assert "not ready after 1 s and was ended" in done.messages
    assert "(--start-seconds); a download goes on where it was; the end of" in done.messages


def test_a_server_that_does_not_start_is_told_with_its_log(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"custom_id": "a", "image": "a.png", "question": "?"}')
    absent = str(tmp_path / "no-checkpoint")
    tool = start(tmp_path / "in.jsonl", tmp_path / "out.jsonl", "-c", absent)
    done = finish(tool)
    assert done.code == 1
    assert "the server did not start; the end of" in done.messages
    assert not (tmp_path / "out.jsonl").exists()
