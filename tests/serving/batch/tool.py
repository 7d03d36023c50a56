"""`vllm-csp batch` as its users run it: a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.overlap import iou
from tests.server import Server, wait_until
from vllm_csp.serving.batch.outcome import masks_of

SECONDS = 240
# As wide as no message is. Ray would kill workers when other programs fill the memory.
ENVIRONMENT = {"COLUMNS": "400", "PYTHONUNBUFFERED": "1", "RAY_memory_monitor_refresh_ms": "0"}


@dataclass(frozen=True)
class Finished:
    """Exit code, the summary that `--json` prints, and what people read."""

    code: int
    summary: dict[str, Any]
    messages: str


def command(*arguments: object) -> list[str]:
    """The command line of the tool."""
    program = str(Path(sys.executable).with_name("vllm-csp"))
    return [program, "batch", *(str(one) for one in arguments), "--json"]


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """The tool, running."""
    return subprocess.Popen(
        command(*arguments),
        env={**os.environ, **ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = SECONDS) -> Finished:
    """Wait for its end."""
    printed, messages = process.communicate(timeout=seconds)
    return Finished(process.returncode, json.loads(printed or "{}"), messages)


def run(*arguments: object, **environment: str) -> Finished:
    """The tool from start to end."""
    return finish(start(*arguments, **environment))


def ask(server: Server | str, *arguments: object) -> Finished:
    """The tool against the session's server, or something in front of it."""
    return run(*arguments, *at(server))


def at(server: Server | str) -> list[str]:
    """Options that lead to a server."""
    if isinstance(server, str):
        return ["--base-url", server, "--api-key", "a-key-of-the-tests"]
    return ["--base-url", server.url, "--api-key", server.key]


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The whole lines of an output, finished or not."""
    if not file.exists():
        return []
    return [json.loads(one) for one in file.read_bytes().split(b"\n")[:-1]]


def by_id(file: Path) -> dict[str, dict[str, Any]]:
    """Lines of a finished output by custom_id, of which there may be one each."""
    lines = read_lines(file)
    assert file.read_bytes().endswith(b"\n")
    counts = Counter(line["custom_id"] for line in lines)
    assert set(counts.values()) == {1}, counts.most_common(3)
    return {line["custom_id"]: line for line in lines}


def kill_after(process: subprocess.Popen[str], file: Path, lines: int, delay: float) -> None:
    """Kill the tool when it has written so many lines, and a moment later."""
    wait_until(lambda: len(read_lines(file)) >= lines, SECONDS, f"{lines} rows are answered")
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def assert_same_answers(file: Path, expected: dict[str, dict[str, Any]]) -> None:
    """The same rows once each, with the same texts and masks.

    Masks to IoU 0.999: kernels round differently for other batch sizes.
    """
    found = by_id(file)
    assert found.keys() == expected.keys()
    for name, line in found.items():
        other = expected[name]
        assert (line["id"], line["error"], line["input"]) == (
            other["id"],
            None,
            other["input"],
        )
        mine, theirs = line["response"]["body"], other["response"]["body"]
        texts = [body["choices"][0]["message"]["content"] for body in (mine, theirs)]
        assert texts[0] == texts[1]
        for mask, reference in zip(masks_of(mine), masks_of(theirs), strict=True):
            assert iou(mask, reference) >= 0.999
