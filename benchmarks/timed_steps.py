"""Runs steps within a time limit, most important first; what is left over runs the next time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vllm_csp.durable import whole_file

SECONDS_TO_END = 5.0
MOST_GUESSES = 3.0
"""How many times its guess a step may take."""


@dataclass(frozen=True)
class Step:
    """One command. guess: seconds it may take; `results`: files (JSON) that it writes."""

    name: str
    command: tuple[str, ...]
    guess: float
    results: tuple[str, ...] = ()


@dataclass
class Record:
    """What became of a step: "done", "failed", "late" (ended by its limit), "left over".

    began: seconds since the epoch; 0 if it did not.
    """

    state: str
    seconds: float = 0.0
    tail: str = ""
    began: float = 0.0


@dataclass
class Journal:
    """Records by step, kept in a file after every step."""

    file: Path
    records: dict[str, Record] = field(default_factory=dict)

    @classmethod
    def open(cls, file: Path) -> Journal:
        """Go on where an earlier run ended; a file that is none starts anew."""
        try:
            stored = json.loads(file.read_text())
            return cls(file, {name: Record(**one) for name, one in stored.items()})
        except (FileNotFoundError, json.JSONDecodeError, TypeError):
            return cls(file)

    def note(self, name: str, record: Record) -> None:
        """Keep a record."""
        self.records[name] = record
        self.file.parent.mkdir(parents=True, exist_ok=True)
        stored = {name: asdict(one) for name, one in self.records.items()}
        with whole_file(self.file) as unfinished:
            unfinished.write_text(json.dumps(stored, indent=1))

    def is_done(self, name: str) -> bool:
        """Whether a step need not run again."""
        return name in self.records and self.records[name].state == "done"

    def guess(self, step: Step, limit: float) -> float:
        """Seconds that the step may take: longer than the limit that ended it before.

        But no longer than a whole run has, or it would never have its turn again.
        """
        before = self.records.get(step.name)
        if before is None or before.state != "late":
            return step.guess
        return max(step.guess, min(1.5 * before.seconds, limit - 2 * SECONDS_TO_END))


def run_steps(
    steps: Sequence[Step],
    journal: Journal,
    limit: float,
    environment: Mapping[str, str] | None = None,
    after: Callable[[], None] = lambda: None,
) -> None:
    """Run what is not done and fits into `limit` seconds, in order; `after` each of them.

    A step that may not fit is left over and a later, shorter one gets its time. A step that fails
    does not stop the others, nor does one that hangs: it is ended after `MOST_GUESSES`. Each runs
    in a session of its own, so that its servers end with it.
    """
    until = time.monotonic() + limit
    for step in steps:
        if journal.is_done(step.name):
            continue
        left = until - time.monotonic() - SECONDS_TO_END
        guess = journal.guess(step, limit)
        if guess > left:
            print(f"{step.name}: left over, {left:.0f} s left", file=sys.stderr, flush=True)
            # What became of it before is still what is known of it.
            if step.name not in journal.records:
                journal.note(step.name, Record("left over", guess))
            continue
        began = time.time()
        most = min(left, MOST_GUESSES * guess)
        record = _run(step, most, journal.file.parent / f"{step.name}.log", environment)
        record.seconds, record.began = round(time.time() - began, 1), began
        journal.note(step.name, record)
        print(f"{step.name}: {record.state}, {record.seconds} s", file=sys.stderr, flush=True)
        after()


def _run(step: Step, limit: float, log: Path, environment: Mapping[str, str] | None) -> Record:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            step.command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        try:
            code: int | None = process.wait(timeout=limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            # The step's own servers too, which may outlive it.
            _end(process)
    tail = "" if code == 0 else log.read_text(errors="replace")[-2000:]
    return Record("late" if code is None else "failed" if code else "done", tail=tail)


def _end(process: subprocess.Popen[bytes]) -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, kind)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=SECONDS_TO_END / 2)
        except subprocess.TimeoutExpired:
            continue
        if kind == signal.SIGTERM:
            time.sleep(0.2)


def summary(steps: Sequence[Step], journal: Journal, results: Path) -> dict[str, Any]:
    """What became of every step, and the documents that they wrote, as far as they came."""
    documents = {}
    for step in steps:
        began = journal.records.get(step.name, Record("not reached")).began
        for name in step.results:
            file = results / name
            if began and file.is_file() and file.stat().st_mtime >= began:
                documents[file.stem] = json.loads(file.read_text())
    states = {
        step.name: asdict(journal.records.get(step.name, Record("not reached"))) for step in steps
    }
    return {"steps": states, "results": documents}
