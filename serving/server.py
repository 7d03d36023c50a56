"""Starts `vllm serve` with the plugin switched on, in this process or as a child."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

PLUGIN = "vllm_csp"
# Set for a server that is to end with the process that started it, whose pipe is its stdin.
END_WITH_PARENT = "VLLM_CSP_END_WITH_PARENT"
SECONDS_TO_START = 3600
"""Enough to download a checkpoint of tens of gigabytes first."""
SECONDS_TO_END = 30
KEEP_ALIVE = "VLLM_HTTP_TIMEOUT_KEEP_ALIVE"
KEEP_ALIVE_SECONDS = 75
"""More than the minute for which many load balancers keep idle connections."""


def enable_plugin() -> None:
    """Name the plugin in `VLLM_PLUGINS`, which endpoint plugins need; others stay as they are."""
    named = [name for name in os.environ.get("VLLM_PLUGINS", "").split(",") if name]
    if PLUGIN not in named:
        os.environ["VLLM_PLUGINS"] = ",".join([*named, PLUGIN])


def keep_idle_connections() -> None:
    """Keep them longer than vLLM's 5 s, unless the user has set a time.

    Symptom: `Connection reset by peer`, a load balancer's 502. A server that could not read for a
    moment first closes the connections whose time is over, with the requests that wait on them.
    Can go when vLLM's default exceeds what clients and load balancers keep.
    """
    os.environ.setdefault(KEEP_ALIVE, str(KEEP_ALIVE_SECONDS))


def run_server(checkpoint: str, flags: Sequence[str]) -> None:
    """Run `vllm serve` here and return when it ends.

    Raises `SystemExit` with 1 if it ended because its engine had died, so that a supervisor starts
    it again.
    """
    from vllm.entrypoints.cli.serve import ServeSubcommand
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.logger import configure_logging_from_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    cli_env_setup()
    enable_plugin()
    keep_idle_connections()
    if os.environ.pop(END_WITH_PARENT, None):
        threading.Thread(target=_end_with_parent, daemon=True).start()

    class Parser(FlexibleArgumentParser):
        def error(self, message: str) -> None:
            left_over = message.removeprefix("unrecognized arguments: ")
            if left_over != message and not left_over.startswith("-"):
                message += "\n\nThe checkpoint comes first: vllm-csp serve CHECKPOINT --port 8001"
            super().error(message)

    parser = Parser(prog="vllm-csp", description="vLLM with masks")
    command = ServeSubcommand()
    command.subparser_init(parser.add_subparsers(dest="subparser"))
    arguments = parser.parse_args(["serve", checkpoint, *flags])
    configure_logging_from_args(arguments)
    command.validate(arguments)
    command.cmd(arguments)
    from vllm_csp.serving.health.ending import engine_died

    if engine_died():
        raise SystemExit(1)


@contextmanager
def background_server(
    checkpoint: str,
    flags: Sequence[str],
    log: Path,
    time_limit: float = SECONDS_TO_START,
    environment: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A server as a child process; gives its base URL once it answers, stops it at the end.

    It also ends when this process is killed, but not by a Ctrl-C at the terminal: what this process
    makes of that is its own affair. `environment`: beside this process's own.

    Raises `RuntimeError` with the end of the log when it ends before it is ready, or is not ready
    within `time_limit` seconds.
    """
    port = free_port()
    command = [sys.executable, "-m", "vllm_csp.serving.cli", "serve", checkpoint]
    command += ["--host", "127.0.0.1", "--port", str(port), *flags]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {}), END_WITH_PARENT: "1"},
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process, log, time_limit)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            # With its engine, which may be stuck too deep to notice that its parent is gone.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _end_with_parent() -> None:
    """Wait until nobody holds the other end of stdin, then end this process."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_END)
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_until_ready(
    url: str, process: subprocess.Popen[bytes], log: Path, time_limit: float
) -> None:
    deadline, status = time.monotonic() + time_limit, 0
    while time.monotonic() < deadline and process.poll() is None:
        try:
            # Not /health: it says that the engine lives, this one that a mask has been made.
            status = httpx.get(f"{url}/ready", timeout=5).status_code
        except httpx.HTTPError:
            status = 0
        if status == 200:
            return
        if status == 404:
            break
        time.sleep(0.3)
    reason = "the server did not start"
    if status == 404:
        reason = "vLLM runs, but could not load the plugin"
    elif process.poll() is None:
        reason = (
            f"the server was not ready after {time_limit:g} s and was ended: if it was still busy, "
            "allow it more (--start-seconds); a download goes on where it was"
        )
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise RuntimeError(f"{reason}; the end of {log}:\n{tail}")


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
