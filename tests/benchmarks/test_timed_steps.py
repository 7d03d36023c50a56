"""Steps within a limit: order, what is left over, going on later, failures, servers left behind."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.timed_steps import SECONDS_TO_END, Journal, Record, Step, run_steps, summary
from tests.processes import lives


def step(name: str, code: str, guess: float = 1) -> Step:
    return Step(name, (sys.executable, "-c", code), guess, (f"{name}.json",))


def writing(name: str, folder: Path) -> Step:
    document = json.dumps({"setting": {}, "rows": [{"name": name}]})
    return step(name, f"open({str(folder / name)!r} + '.json', 'w').write({document!r})")


def run(steps: list[Step], folder: Path, limit: float) -> Journal:
    journal = Journal.open(folder / "journal.json")
    run_steps(steps, journal, limit)
    return journal


def states(journal: Journal) -> dict[str, str]:
    return {name: record.state for name, record in journal.records.items()}


def test_a_step_that_may_not_fit_gives_its_time_to_a_later_one(tmp_path: Path) -> None:
    steps = [step("long", "pass", guess=100), writing("short", tmp_path)]
    assert states(run(steps, tmp_path, 30)) == {"long": "left over", "short": "done"}


def test_a_later_run_does_only_what_is_missing(tmp_path: Path) -> None:
    counting = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    steps = [step("once", counting), step("later", counting, guess=50)]
    run(steps, tmp_path, 30)
    assert states(run(steps, tmp_path, 100)) == {"once": "done", "later": "done"}
    assert (tmp_path / "count").read_text() == "xx"


def test_a_failure_stops_nobody_and_is_tried_again(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    failing = step(
        "fails", f"import os, sys; print('why'); sys.exit(not os.path.exists({str(flag)!r}))"
    )
    steps = [failing, writing("next", tmp_path)]
    journal = run(steps, tmp_path, 60)
    assert states(journal) == {"fails": "failed", "next": "done"}
    assert "why" in journal.records["fails"].tail
    flag.touch()
    assert states(run(steps, tmp_path, 60))["fails"] == "done"


def test_a_late_step_ends_with_all_it_started_and_gets_more_time_later(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = (
        "import subprocess, sys, time\n"
        "one = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(child)!r}, 'w').write(str(one.pid)); time.sleep(600)"
    )
    late = step("late", code)
    journal = run([late], tmp_path, SECONDS_TO_END + 8)
    assert states(journal) == {"late": "late"}
    assert journal.guess(late, 540) > journal.records["late"].seconds
    deadline = time.monotonic() + 20
    while lives(int(child.read_text())) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not lives(int(child.read_text()))


@pytest.mark.parametrize("text", ["", "{", '{"a": 1}', '{"a": {"no": "field"}}'])
def test_a_torn_journal_starts_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / "journal.json").write_text(text)
    assert Journal.open(tmp_path / "journal.json").records == {}


def test_the_summary_has_documents_of_what_ran_and_none_from_before(tmp_path: Path) -> None:
    half = writing("half", tmp_path)
    half = step("half", half.command[-1] + "; raise SystemExit(1)")
    steps = [writing("good", tmp_path), half, writing("stale", tmp_path), step("never", "pass")]
    journal = run(steps[:2], tmp_path, 30)
    (tmp_path / "stale.json").write_text('{"setting": {}, "rows": []}')
    journal.note("stale", Record("failed", 1.0, "boom", began=time.time() + 60))
    found = summary(steps, journal, tmp_path)
    assert list(found["results"]) == ["good", "half"]
    assert [one["state"] for one in found["steps"].values()] == [
        *("done", "failed", "failed", "not reached")
    ]


def test_a_late_step_that_is_left_over_is_still_known_as_late(tmp_path: Path) -> None:
    late = step("late", "pass")
    journal = Journal.open(tmp_path / "journal.json")
    journal.note("late", Record("late", 400.0))
    run_steps([late], journal, 120)
    assert states(journal) == {"late": "done"}, "a guess beyond any run is a whole run's"
    journal.note("late", Record("late", 50.0))
    before = [step(name, "import time; time.sleep(2.7)") for name in ("one", "two")]
    run_steps([*before, late], journal, 60)
    assert (journal.records["late"].state, journal.records["late"].seconds) == ("late", 50.0)


def test_a_failed_step_that_is_left_over_keeps_its_reason_and_its_rows(tmp_path: Path) -> None:
    half = step("half", writing("half", tmp_path).command[-1] + "; raise SystemExit('why')")
    journal = run([half], tmp_path, 30)
    run_steps([replace(half, guess=500)], journal, 30)
    found = summary([half], journal, tmp_path)
    assert found["steps"]["half"]["state"] == "failed" and "why" in found["steps"]["half"]["tail"]
    assert list(found["results"]) == ["half"]


def test_a_step_that_hangs_does_not_take_the_others_time(tmp_path: Path) -> None:
    steps = [step("hangs", "import time; time.sleep(600)"), writing("next", tmp_path)]
    assert states(run(steps, tmp_path, 120)) == {"hangs": "late", "next": "done"}
