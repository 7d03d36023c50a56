"""The disk fails, the terminal goes away, nobody reads the messages: what a run makes of that."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.serving.batch.conftest import NUM_ROWS, Undisturbed
from tests.serving.batch.proxy import Fault, Proxy
from tests.serving.batch.rows import answered_line
from tests.serving.batch.tool import (
    ENVIRONMENT,
    SECONDS,
    assert_same_answers,
    at,
    command,
    finish,
    read_lines,
    start,
)
from vllm_csp.serving.batch.journal import Journal
from vllm_csp.serving.batch.run import ticking

Messages: TypeAlias = AbstractContextManager[tuple[int, int]]

# Python runs a file of this name in each process that finds it.
FAILING_DISK = """
import errno, os, stat
sync = os.fsync

def fail(handle):
    if stat.S_ISREG(os.fstat(handle).st_mode):
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    sync(handle)

os.fsync = fail
"""


def test_a_disk_that_fails_ends_the_run(
    proxy: Proxy, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Though a row is on its way for longer than the test waits, and others are answered."""
    (tmp_path / "sitecustomize.py").write_text(FAILING_DISK)
    proxy.faults = {"object 0 ": [Fault(hang=True)]}
    output = tmp_path / "out.jsonl"
    tool = start(
        *(undisturbed.source, output, *at(proxy.url), "--timeout", 2 * SECONDS),
        PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
    )
    done = finish(tool)
    assert done.code == 1
    assert f"Input/output error: '{output}'" in done.messages
    assert "Traceback" not in done.messages
    resumed = finish(start(undisturbed.source, output, *at(proxy.url), "--resume"))
    assert resumed.code == 0, resumed.messages
    assert_same_answers(output, undisturbed.answers)


def test_what_could_not_be_synced_is_synced_again(tmp_path: Path) -> None:
    """Of a pipe no system syncs anything."""
    os.mkfifo(tmp_path / "pipe")
    journal = Journal(tmp_path / "pipe")
    journal.append(answered_line("a"))
    for _ in range(2):
        with pytest.raises(OSError, match="pipe"):
            journal.sync()
    with pytest.raises(OSError, match="pipe"):
        journal.close()


def test_syncing_goes_on_until_the_end(tmp_path: Path) -> None:
    ticks: list[int] = []

    async def wait() -> None:
        async with ticking(Journal(tmp_path / "out.jsonl"), lambda: ticks.append(1)):
            await asyncio.sleep(2.5)

    asyncio.run(wait())
    assert len(ticks) == 2


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    """The reader's end of a pipe, and the writer's."""
    reader, writer = os.pipe()
    yield reader, writer
    os.close(writer)


@contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Likewise of a terminal, on which the tool shows a bar."""
    reader, writer = os.openpty()
    yield reader, writer
    os.close(writer)


@pytest.mark.parametrize("messages", [pipe, terminal])
def test_a_run_outlives_whoever_reads_its_messages(
    proxy: Proxy, undisturbed: Undisturbed, tmp_path: Path, messages: Callable[[], Messages]
) -> None:
    output = tmp_path / "out.json"
    # Which says at once that it resumes.
    arguments = command(undisturbed.source, output, *at(proxy.url), "--resume")
    with messages() as (reader, writer):
        tool = subprocess.Popen(
            arguments,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=writer,
            start_new_session=True,
        )
        os.read(reader, 1)
        os.close(reader)
        printed, _ = tool.communicate(timeout=SECONDS)
    assert tool.returncode == 0
    assert json.loads(printed)["answered"] == NUM_ROWS
    assert len(json.loads(output.read_text())["annotations"]) == NUM_ROWS
    assert len(read_lines(tmp_path / "out.json.journal.jsonl")) == NUM_ROWS
