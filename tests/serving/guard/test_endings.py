"""How a server ends, told to or because its engine died, and that it can be started again."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.chat import body, user
from tests.pictures import data_url
from tests.processes import lives
from tests.server import wait_until
from tests.serving.guard.real import (
    Real,
    finish,
    long_chat,
    picture,
    running,
    start,
    wait_until_ready,
)
from tests.serving.guard.test_bodies import refused
from vllm_csp.serving.server import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def when_busy(real: Real, count: int) -> None:
    name = "vllm_csp:held_requests"
    wait_until(lambda: real.metric(name) == count, 60, f"{count} answers are in the making")


def streamed(real: Real) -> str:
    """All that comes of a streamed answer, whole or not."""
    received = ""
    url, request = f"{real.url}/v1/chat/completions", long_chat(71, 800, stream=True)
    with httpx.stream("POST", url, json=request, timeout=120) as reply:
        try:
            for part in reply.iter_text():
                received += part
        except httpx.RemoteProtocolError:
            received += "(broken off)"
    return received


class Supervisor:
    """Starts a server again whenever it ends with an error, as systemd's `Restart=on-failure`."""

    def __init__(self, checkpoint: Path, out: Path) -> None:
        self._start = lambda: start(checkpoint, out, port=port)
        port = free_port()
        self.codes: list[int] = []
        self.server = self._start()
        self._stopped = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self.codes.append(self.server.process.wait())
            if self._stopped or self.codes[-1] == 0:
                return
            self.server = self._start()

    def stop(self) -> None:
        self._stopped = True
        finish(self.server)
        self._thread.join(60)


@contextmanager
def supervised(checkpoint: Path, out: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(checkpoint, out)
    try:
        wait_until_ready(supervisor.server)
        yield supervisor
    finally:
        supervisor.stop()


def test_a_dead_engine_is_told_and_a_supervisor_serves_again(
    standin: Path, tmp_path: Path, callers: ThreadPoolExecutor
) -> None:
    with supervised(standin, tmp_path / "out.log") as supervisor:
        for title in ("Worker", "EngineCore"):
            server = supervisor.server
            below = server.below()
            expected = server.segment("What?", picture=picture()).json()["results"]
            waiting = [
                callers.submit(server.chat, long_chat(70, 800)),
                callers.submit(server.segment, "What?", picture=picture(72)),
            ]
            stream = callers.submit(streamed, server)
            when_busy(server, 3)
            died = time.monotonic()
            os.kill(server.process_of(title), signal.SIGKILL)
            wait_until(lambda: server.status("/health") == 503, 10, "/health says it")  # noqa: B023
            assert server.state() == "dead"
            refused(server.segment("What?", picture=picture()), 503)
            statuses = [one.result(timeout=10).status_code for one in waiting]
            assert time.monotonic() - died < 15
            # The short one may have been answered before.
            assert statuses[0] == 500 and statuses[1] in (200, 500)
            told = stream.result(timeout=10)
            assert "EngineCore encountered an issue" in told or "(broken off)" in told
            wait_until(lambda: server.process.poll() is not None, 30, "it ends")  # noqa: B023
            wait_until(lambda: not any(map(lives, below)), 10, "nothing is left")  # noqa: B023
            wait_until(lambda: supervisor.server is not server, 5, "it is started")  # noqa: B023
            wait_until_ready(supervisor.server)
            again = supervisor.server.segment("What?", picture=picture()).json()["results"]
            assert again == expected
        assert supervisor.codes == [1, 1]


def test_on_sigterm_requests_are_finished_and_no_new_ones_let_in(
    standin: Path, tmp_path: Path, callers: ThreadPoolExecutor
) -> None:
    with running(standin, tmp_path / "out.log", "--drain-seconds", "120") as server:
        short = body(user("What?", data_url(picture(73))), segmentation={"mode": "force"})
        waiting: list[Future[httpx.Response]] = [
            callers.submit(server.chat, long_chat(70 + i, 300)) for i in range(2)
        ]
        stream = callers.submit(streamed, server)
        when_busy(server, 3)
        server.process.terminate()
        wait_until(lambda: server.state() == "draining", 10, "it drains")
        assert server.status("/ready") == 503
        assert server.status("/health") == 200
        reply = server.chat(short)
        assert "is ending" in refused(reply, 503)["message"]
        assert reply.headers["retry-after"] == "5"
        refused(server.segment("What?", picture=picture()), 503)
        for one in waiting:
            answer = one.result()
            assert answer.status_code == 200
            message = answer.json()["choices"][0]["message"]
            assert len(message["masks"]) == min(message["content"].count("[SEG]"), 32) > 0
        told = stream.result()
        assert told.rstrip().endswith("data: [DONE]") and '"masks": [{' in told
        assert server.process.wait(timeout=40) == 0


@pytest.mark.parametrize("what", ["a long answer", "a stuck engine", "half a request"])
def test_it_ends_in_time_whatever_is_left(
    standin: Path, tmp_path: Path, callers: ThreadPoolExecutor, what: str
) -> None:
    with running(standin, tmp_path / "out.log", "--drain-seconds", "2") as server:
        below = server.below()
        left: dict[str, Callable[[], object]] = {
            "a long answer": lambda: server.chat(long_chat(70, 800)),
            "a stuck engine": lambda: server.chat(long_chat(70, 800)),
            "half a request": lambda: half_sent(server),
        }
        waiting = callers.submit(left[what])
        if what == "half a request":
            time.sleep(2)
        else:
            when_busy(server, 1)
        if what == "a stuck engine":
            os.kill(server.process_of("EngineCore"), signal.SIGSTOP)
        began = time.monotonic()
        server.process.terminate()
        assert server.process.wait(timeout=40) == 0
        assert time.monotonic() - began < 30
        reply = waiting.result(timeout=10)
        if isinstance(reply, httpx.Response):
            assert "before the answer was complete" in refused(reply, 503)["message"]
        wait_until(lambda: not any(map(lives, below)), 10, "nothing is left")


def half_sent(server: Real) -> bytes:
    """What comes back to a client that stops in the middle of its body."""
    import socket

    host, port = server.url.removeprefix("http://").split(":")
    head = b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n"
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(head + b"Content-Type: application/json\r\n\r\n{")
        try:
            return connection.recv(65536)
        except ConnectionResetError:
            return b""
