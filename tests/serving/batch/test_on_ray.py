"""Batches on Ray: exactly once, whatever becomes of workers and of the tool."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.processes import children, command, lives
from tests.server import wait_until
from tests.serving.batch.conftest import NUM_ROWS, Undisturbed
from tests.serving.batch.made_up_worker import MadeUpWorker
from tests.serving.batch.rows import question_rows, write_lines
from tests.serving.batch.test_own_server import FLAGS, has_lines
from tests.serving.batch.tool import (
    assert_same_answers,
    by_id,
    finish,
    read_lines,
    run,
    start,
)
from vllm_csp.serving.batch.journal import Journal
from vllm_csp.serving.batch.on_ray.cluster import LOCAL, Cluster
from vllm_csp.serving.batch.on_ray.rounds import Rounds
from vllm_csp.serving.batch.on_ray.worker import Engine
from vllm_csp.serving.batch.sources.choice import InputKind, open_source
from vllm_csp.serving.batch.sources.source import Asking, UsageError
from vllm_csp.serving.batch.stop import Stop
from vllm_csp.serving.batch.tally import Tally
from vllm_csp.serving.batch.window import grouped

pytest.importorskip("ray")

WORKERS = 2
# Two engines start side by side, on cores that others may use too.
MINUTES = 1800


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Of this machine, for all runs in this process."""
    with Cluster(LOCAL, num_workers=WORKERS) as running:
        yield running


class MadeUp:
    """A run whose workers are made up; `questions` are one row each."""

    def __init__(self, cluster: Cluster, folder: Path, questions: list[str], **limits: int) -> None:
        (folder / "workers").mkdir()
        self.output = folder / "out.jsonl"
        rows = [
            {"custom_id": f"row {number}", "image": f"{number}.png", "question": text}
            for number, text in enumerate(questions)
        ]
        source = open_source(
            str(write_lines(folder / "in.jsonl", rows)),
            InputKind.AUTO,
            Asking("force", None),
            questions=[],
            images=None,
        )
        self.work = grouped(source.rows(), 100)
        self.tally = Tally()
        self.stop = Stop()
        engine = Engine(str(folder / "workers"), (), folder, 4, 0, 10)
        self.journal = Journal(self.output)
        self.rounds = Rounds(
            cluster, engine, self.journal, self.tally, self.stop, worker=MadeUpWorker, **limits
        )

    def run(self) -> None:
        with self.journal:
            asyncio.run(self.rounds.finish(self.work, lambda: None))

    def starts(self) -> int:
        """How many workers there have been."""
        return len(list((self.output.parent / "workers").glob("worker-*")))


def answered(made_up: MadeUp) -> list[str]:
    return sorted(by_id(made_up.output), key=lambda name: int(name.split()[1]))


def test_every_row_is_answered_once_whatever_becomes_of_workers(
    cluster: Cluster, tmp_path: Path
) -> None:
    """Some rows kill their worker, some replies come twice; two rounds."""
    questions = ["deadly" if number % 12 == 5 else "?" for number in range(50)]
    questions[10] = "twice"
    made_up = MadeUp(cluster, tmp_path, questions, rows=36)
    made_up.run()
    assert answered(made_up) == [f"row {number}" for number in range(50)]
    assert made_up.tally.succeeded == made_up.tally.masks == 50
    assert made_up.rounds.counts["rounds"] == 2
    # A call for each pack of at most 4 rows.
    assert made_up.rounds.counts["images_read"] == 13
    assert made_up.starts() >= 2 * WORKERS + 1


def test_what_does_not_come_is_told(cluster: Cluster, tmp_path: Path) -> None:
    made_up = MadeUp(cluster, tmp_path, [*["?"] * 9, "lost"])
    with pytest.raises(RuntimeError, match="Ray lost 2 rows: --resume"):
        made_up.run()
    assert len(answered(made_up)) == 8


def test_a_stopped_run_ends_with_the_next_reply(cluster: Cluster, tmp_path: Path) -> None:
    made_up = MadeUp(cluster, tmp_path, [*["?"] * 8, *["slow"] * 80])

    async def run_and_stop() -> None:
        task = asyncio.create_task(made_up.rounds.finish(made_up.work, lambda: None))
        while made_up.tally.succeeded < 8 and not task.done():
            await asyncio.sleep(0.05)
        made_up.stop.ask()
        await task

    with made_up.journal:
        asyncio.run(run_and_stop())
    assert 8 <= len(answered(made_up)) <= 12


def test_an_own_cluster_listens_on_loopback_only(cluster: Cluster) -> None:
    ours = {os.getpid(), *children(os.getpid(), recursive=True)}
    listening = [
        one.laddr.ip
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN and one.pid in ours
    ]
    assert len(listening) > WORKERS
    assert {ip.removeprefix("::ffff:") for ip in listening} == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("cluster_with", "reason"),
    [
        ({"num_workers": 10_000, "gpus": 1}, "10000 engines with 1 GPUs each, but the cluster has"),
    ],
)
def test_what_a_cluster_has_not_is_told(cluster_with: dict[str, Any], reason: str) -> None:
    wanted = Cluster(LOCAL, **cluster_with)
    with pytest.raises(UsageError, match=reason):
        wanted._plan({"CPU": 2.0})


def test_servers_of_others_are_not_asked_on_ray(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", question_rows(["a.png"], 1))
    done = run(source, tmp_path / "out.jsonl", "--ray", "--base-url", "http://127.0.0.1:1")
    assert done.code == 2
    assert "leave --base-url out" in done.messages


def on_ray(oracle: Path, source: Path, output: Path) -> list[object]:
    """Arguments of a run with two workers, each an engine; two rows at once in each."""
    flags = ["-c", str(oracle / "checkpoint"), "--server-flags", FLAGS, "--concurrency", 2]
    return [source, output, *flags, "--ray", "--ray-workers", WORKERS]


def workers_of(tool: subprocess.Popen[str]) -> list[int]:
    """Processes of Ray's that hold engines."""
    below = children(tool.pid, recursive=True)
    return [number for number in below if "EngineWorker" in command(number)]


def kill_workers(tool: subprocess.Popen[str], output: Path, kills: int, seed: int) -> None:
    """Now and then while rows are answered, one of the workers."""
    chance = random.Random(seed)
    for _ in range(kills):
        lines = min(NUM_ROWS - 2, len(read_lines(output)) + chance.randint(1, 3))
        wait_until(partial(has_lines, output, lines), MINUTES, f"{lines} rows are answered")
        time.sleep(chance.uniform(0, 0.5))
        os.kill(chance.choice(workers_of(tool)), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("seed", "kills"), [(0, 2), (1, 4), (2, 4)])
def test_killed_workers_leave_no_trace(
    oracle: Path, undisturbed: Undisturbed, tmp_path: Path, seed: int, kills: int
) -> None:
    """Real engines; ten workers in all are killed."""
    output = tmp_path / "out.jsonl"
    tool = start(*on_ray(oracle, undisturbed.source, output))
    kill_workers(tool, output, kills, seed)
    done = finish(tool, MINUTES)
    assert done.code == 0, done.messages
    assert done.summary["answered"] == NUM_ROWS
    assert_same_answers(output, undisturbed.answers)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_stopped_and_a_killed_tool_take_their_workers_along_and_resume(
    oracle: Path, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    for signals, lines in ((signal.SIGINT, 2), (signal.SIGKILL, 8)):
        tool = start(*on_ray(oracle, undisturbed.source, output), "--resume")
        wait_until(partial(has_lines, output, lines), MINUTES, f"{lines} rows are answered")
        started = children(tool.pid, recursive=True)
        assert len(workers_of(tool)) == WORKERS
        tool.send_signal(signals)
        tool.communicate(timeout=300)
        assert tool.returncode == (1 if signals == signal.SIGINT else -signal.SIGKILL)
        # Engines end within seconds; Ray's own agents look for their raylet once a minute.
        wait_until(lambda gone=started: not any(map(lives, gone)), 180, "all have ended")
    done = finish(start(*on_ray(oracle, undisturbed.source, output), "--resume"), MINUTES)
    assert done.code == 0, done.messages
    assert_same_answers(output, undisturbed.answers)
