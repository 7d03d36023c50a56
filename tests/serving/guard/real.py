"""`vllm-csp serve` with a stand-in checkpoint, to be killed and told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.metrics import samples
from tests.chat import body, user
from tests.pictures import data_url, encoded, gradient
from tests.processes import children, command
from tests.server import wait_until
from vllm_csp.serving.server import free_port

START_SECONDS = 400
ANSWER_SECONDS = 300
SEG = 32003
FLAGS = (
    *("--served-model-name", "lisa", "--host", "127.0.0.1", "--enforce-eager"),
    *("--max-model-len", "1024", "--max-num-seqs", "8", "--kv-cache-memory-bytes", "64M"),
)


@dataclass
class Real:
    """A server's process, its address, and the files of its stdout and stderr."""

    url: str
    out: Path
    process: subprocess.Popen[bytes]

    def get(self, path: str) -> httpx.Response | None:
        """The answer; None if nobody listens."""
        try:
            return httpx.get(self.url + path, timeout=5)
        except httpx.TransportError:
            return None

    def page(self, path: str) -> httpx.Response:
        """The answer of a server that listens, however long it takes."""
        return httpx.get(self.url + path, timeout=ANSWER_SECONDS)

    def status(self, path: str) -> int:
        """Status of a path; 0 if nobody listens."""
        reply = self.get(path)
        return 0 if reply is None else reply.status_code

    def state(self) -> str:
        """What GET /ready says; empty if nobody listens."""
        reply = self.get("/ready")
        return "" if reply is None else str(reply.json()["state"])

    def segment(self, *questions: str, picture: bytes, **headers: str) -> httpx.Response:
        """Ask about a picture."""
        request = {"image": data_url(picture), "questions": list(questions)}
        return httpx.post(
            f"{self.url}/v1/segment", json=request, headers=headers, timeout=ANSWER_SECONDS
        )

    def chat(self, request: dict[str, Any]) -> httpx.Response:
        """Send a chat."""
        return httpx.post(f"{self.url}/v1/chat/completions", json=request, timeout=ANSWER_SECONDS)

    def metric(self, name: str, **labels: str) -> float:
        """A value of /metrics by its name and all its labels."""
        found = samples(self.page("/metrics").text)
        [value] = [one.value for one in found if (one.name, one.labels) == (name, labels)]
        return value

    def below(self) -> list[int]:
        """Numbers of all processes below the server's."""
        return children(self.process.pid, recursive=True)

    def process_of(self, title: str) -> int:
        """The one process below with a name like `EngineCore` or `Worker`."""
        [number] = [one for one in self.below() if f"VLLM::{title}" in command(one)]
        return number

    @contextmanager
    def stopped(self, title: str = "") -> Iterator[None]:
        """Keep such a process, or the API server itself, from going on."""
        number = self.process_of(title) if title else self.process.pid
        os.kill(number, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(number, signal.SIGCONT)


def picture(width: int = 80) -> bytes:
    """A file that no other width gives."""
    return encoded(gradient(width, 61))


def long_chat(width: int, max_tokens: int = 400, **fields: Any) -> dict[str, Any]:
    """A request that takes a while; its answer is nothing but [SEG]s."""
    return body(
        user("Please segment everything.", data_url(picture(width))),
        allowed_token_ids=[SEG],
        ignore_eos=True,
        max_tokens=max_tokens,
        **fields,
    )


def start(checkpoint: Path, out: Path, *flags: str, port: int = 0) -> Real:
    """Start a server; wait for it with `wait_until_ready`."""
    port = port or free_port()
    command = [str(Path(sys.executable).with_name("vllm-csp")), "serve", str(checkpoint)]
    with out.open("ab") as stdout, out.with_suffix(".err").open("ab") as stderr:
        process = subprocess.Popen(
            [*command, "--port", str(port), *FLAGS, *flags],
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    return Real(f"http://127.0.0.1:{port}", out, process)


def wait_until_ready(server: Real) -> None:
    """Fails with the end of the log when the server ends instead."""

    def ready() -> bool:
        if server.process.poll() is not None:
            raise AssertionError(f"the server ended at start:\n{server.out.read_text()[-3000:]}")
        return server.status("/ready") == 200

    wait_until(ready, START_SECONDS, f"the server is ready; log: {server.out}")


def finish(server: Real) -> None:
    """Leave nothing of a server, whatever state it is in."""
    below = server.below()
    for number in below:
        _signal(number, signal.SIGCONT)
    server.process.terminate()
    try:
        server.process.wait(timeout=40)
    except subprocess.TimeoutExpired:
        for number in [*below, server.process.pid]:
            _signal(number, signal.SIGKILL)
        server.process.wait()


def _signal(number: int, what: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(number, what)


@contextmanager
def running(checkpoint: Path, out: Path, *flags: str, port: int = 0) -> Iterator[Real]:
    """A server that is ready, ended at the end."""
    server = start(checkpoint, out, *flags, port=port)
    try:
        wait_until_ready(server)
        yield server
    finally:
        finish(server)
