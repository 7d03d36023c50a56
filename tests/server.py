"""A real `vllm serve` in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.metrics import samples
from vllm_csp.serving.server import KEEP_ALIVE, KEEP_ALIVE_SECONDS, free_port

START_SECONDS = 400
ANSWER_SECONDS = 120


@dataclass(frozen=True)
class Server:
    """Where it listens, the key it wants, and its log."""

    url: str
    key: str
    log: Path
    process: subprocess.Popen[bytes]

    def client(self, *, authorised: bool = True) -> httpx.Client:
        """A client of its own, to be closed by the caller."""
        headers = {"Authorization": f"Bearer {self.key}"} if authorised else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=ANSWER_SECONDS)

    def chat(self, body: dict[str, Any]) -> httpx.Response:
        """One chat request."""
        with self.client() as client:
            return client.post("/v1/chat/completions", json=body)

    def held(self) -> dict[str, int]:
        """What the worker holds, through vLLM's development route."""
        with self.client() as client:
            reply = client.post("/collective_rpc", json={"method": "csp_held"})
        return reply.raise_for_status().json()["results"][0]

    def running(self) -> float:
        """Requests that the engine works on or keeps waiting."""
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
        found = [one.value for one in samples(self.metrics()) if one.name in names]
        assert len(found) == len(names)
        return sum(found)

    def prompt_tokens(self) -> float:
        """Tokens of the prompts that the engine has read so far."""
        name = "vllm:prompt_tokens_total"
        return sum(one.value for one in samples(self.metrics()) if one.name == name)

    def metrics(self) -> str:
        """What `/metrics` tells."""
        with self.client() as client:
            return client.get("/metrics").raise_for_status().text


def wait_until(holds: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll a condition; fails by name when it does not hold in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.05)


@contextmanager
def serving(checkpoint: Path, log: Path, *flags: str, key: str) -> Iterator[Server]:
    """Serve a checkpoint as its users do, and stop that process at the end."""
    port = free_port()
    command = [
        *(str(Path(sys.executable).with_name("vllm")), "serve", str(checkpoint)),
        *("--served-model-name", "lisa", "--host", "127.0.0.1", "--port", str(port)),
        *("--api-key", key, *flags),
    ]
    # Development routes show what the worker holds; a busy machine shall not reset connections.
    environment = {**os.environ, "VLLM_PLUGINS": "vllm_csp", "VLLM_SERVER_DEV_MODE": "1"}
    environment[KEEP_ALIVE] = str(KEEP_ALIVE_SECONDS)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    server = Server(f"http://127.0.0.1:{port}", key, log, process)
    try:
        wait_until(lambda: _ready(server), START_SECONDS, f"the server is ready; log: {log}")
        yield server
    finally:
        _stop(process)


def _ready(server: Server) -> bool:
    if server.process.poll() is not None:
        raise AssertionError(f"the server ended at start:\n{server.log.read_text()[-4000:]}")
    try:
        # Not /health, which does not wait for the mask that a server makes at its start.
        return httpx.get(f"{server.url}/ready").status_code == 200
    except httpx.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
