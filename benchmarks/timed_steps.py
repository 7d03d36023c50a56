"""Runs steps within a time limit, most important first; what is left over runs the next time."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

SECONDS_TO_END = 5.0


@dataclass(frozen=True)
class Step:
    """One command. guess: seconds it may take; `results`: files (JSON) that it writes."""

    name: str
    command: tuple[str, ...]
    guess: float
    results: tuple[str, ...] = ()


@dataclass
class Record:
    """What became of a step: "done", "failed", "late" (ended by the limit), "left over"."""

    state: str
    seconds: float = 0.0
    tail: str = ""


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
        beside = self.file.with_suffix(".part")
        stored = {name: asdict(one) for name, one in self.records.items()}
        beside.write_text(json.dumps(stored, indent=1))
        beside.replace(self.file)

    def is_done(self, name: str) -> bool:
        """Whether a step need not run again."""
        return name in self.records and self.records[name].state == "done"

    def guess(self, step: Step) -> float:
        """Seconds that the step may take: longer than the limit that ended it before."""
        before = self.records.get(step.name)
        if before is not None and before.state == "late":
            return max(step.guess, 1.5 * before.seconds)
        return step.guess


def run_steps(
    steps: Sequence[Step],
    journal: Journal,
    limit: float,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run what is not done and fits into `limit` seconds, in order.

    A step that may not fit is left over and a later, shorter one gets its time. A step that fails
    does not stop the others. Each runs in a session of its own, so that its servers end with it.
    """
    until = time.monotonic() + limit
    for step in steps:
        if journal.is_done(step.name):
            continue
        left = until - time.monotonic() - SECONDS_TO_END
        if journal.guess(step) > left:
            journal.note(step.name, Record("left over", journal.guess(step)))
            print(f"{step.name}: left over, {left:.0f} s left", file=sys.stderr, flush=True)
            continue
        began = time.monotonic()
        record = _run(step, left, journal.file.parent / f"{step.name}.log", environment)
        record.seconds = round(time.monotonic() - began, 1)
        journal.note(step.name, record)
        print(f"{step.name}: {record.state}, {record.seconds} s", file=sys.stderr, flush=True)


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
    """What became of every step, and the documents that the done ones wrote."""
    documents = {}
    for step in steps:
        for name in step.results:
            file = results / name
            if journal.is_done(step.name) and file.is_file():
                documents[file.stem] = json.loads(file.read_text())
    states = {
        step.name: asdict(journal.records.get(step.name, Record("not reached"))) for step in steps
    }
    return {"steps": states, "results": documents}
