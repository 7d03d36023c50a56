"""The table of docs/scaling.md is what `benchmarks.sizing` prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = {
    "engines for 30 days": ("engines", "{:,.0f}"),
    "engine hours": ("engine hours", "{:,.0f}"),
    "rows per second": ("rows per second", "{:,.0f}"),
    "photos": ("photos, TB", "{:.0f} TB"),
    "photos from storage": ("photos from storage, MB/s", "{:.0f} MB/s"),
    "photos per engine": ("photos per engine, MB/s", "{:.2g} MB/s"),
    "journal": ("journal, TB", "{:.1f} TB"),
    "lines to the driver": ("lines to the driver, MB/s", "{:.1f} MB/s"),
    "core hours to recover the journal": ("core hours to recover the journals", "{:.1f}"),
    "time lost to engine starts of 120 s": ("time lost to engine starts, %", "{:.2g} %"),
}


@pytest.mark.parametrize(("column", "rate"), [(1, 2), (2, 10), (3, 50)])
def test_the_page_can_be_recomputed(column: int, rate: int) -> None:
    command = [sys.executable, "-m", "benchmarks.sizing", "--images", "1e9", "--days", "30"]
    printed = subprocess.run(
        [*command, "--rate", str(rate)], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    figures = json.loads(printed.splitlines()[-1])["figures"]
    page = (ROOT / "docs" / "scaling.md").read_text()
    table = page[page.index("| engines for 30 days |") :].split("\n\n")[0]
    cells = {
        row.split(" | ")[0].strip("| "): row.strip("| ").split(" | ") for row in table.split("\n")
    }
    shown = {name: cells[name][column] for name in ROWS}
    assert shown == {name: form.format(figures[key]) for name, (key, form) in ROWS.items()}


def test_what_was_measured_is_what_the_page_says() -> None:
    measured = (ROOT / "benchmarks" / "results" / "batch_tool.csv").read_text().splitlines()[1:]
    page = (ROOT / "docs" / "scaling.md").read_text()
    for line in measured:
        _, rate, size = line.split(",")
        assert f"| {int(rate):,} | {int(size):,} |" in page
