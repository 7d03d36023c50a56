"""A server that others run is killed under the tool, and started again by its supervisor."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from tests.processes import children
from tests.server import wait_until
from tests.serving.batch.conftest import Undisturbed
from tests.serving.batch.test_own_server import FLAGS, has_lines
from tests.serving.batch.tool import SECONDS, assert_same_answers, finish, read_lines, start
from vllm_csp.serving.server import free_port

KEY = "a-key-of-the-tests"


class Supervised:
    """`vllm-csp serve` on one port, started again whenever it ends."""

    def __init__(self, checkpoint: Path, log: Path) -> None:
        self.port = free_port()
        self.starts = 0
        self._log = log
        program = str(Path(sys.executable).with_name("vllm-csp"))
        self._command = [program, "serve", str(checkpoint), "--served-model-name", "lisa"]
        self._command += ["--host", "127.0.0.1", "--port", str(self.port), "--api-key", KEY]
        self._command += FLAGS.split()
        self._wanted = True
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self, which: str) -> None:
        """Kill -9: `all` its processes, or only the `engine`, or only the `front`."""
        assert self._process is not None
        front, engines = self._process.pid, children(self._process.pid)
        victims = {"all": [*engines, front], "engine": engines, "front": [front]}[which]
        for number in victims:
            os.kill(number, signal.SIGKILL)

    def end(self) -> None:
        self._wanted = False
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        self._thread.join(timeout=90)

    def _run(self) -> None:
        while self._wanted:
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command, stdout=log, stderr=log, start_new_session=True
                )
                self.starts += 1
                self._process.wait()
                # What it may have left: an engine whose front was killed.
                with suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)


@contextmanager
def supervised(checkpoint: Path, log: Path) -> Iterator[Supervised]:
    server = Supervised(checkpoint, log)
    try:
        yield server
    finally:
        server.end()


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize(("seed", "kills"), [(0, 2), (1, 10)])
def test_a_supervised_server_is_killed_again_and_again(
    oracle: Path, undisturbed: Undisturbed, tmp_path: Path, seed: int, kills: int
) -> None:
    chance = random.Random(seed)
    output = tmp_path / "out.jsonl"
    with supervised(oracle / "checkpoint", tmp_path / "server.log") as server:
        options = ["--base-url", server.url, "--api-key", KEY, "--concurrency", 2]
        # Longer than a server takes to start on a busy machine.
        tool = start(undisturbed.source, output, *options, "--patience", 900)
        for number in range(kills):
            lines = len(read_lines(output)) + chance.randint(1, 2)
            wait_until(partial(has_lines, output, lines), 4 * SECONDS, f"{lines} rows are answered")
            time.sleep(chance.uniform(0, 0.2))
            server.kill(("all", "engine", "front")[number % 3])
        done = finish(tool)
        assert done.code == 0, done.messages
        assert server.starts == kills + 1
    assert_same_answers(output, undisturbed.answers)
