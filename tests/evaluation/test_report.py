"""The files that a comparison leaves."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.evaluation.test_runner import COST
from vllm_csp.evaluation.metrics import Overlap
from vllm_csp.evaluation.outcome import Outcome, PolicyResult, mean_costs
from vllm_csp.evaluation.plot import can_plot, plot_budget
from vllm_csp.evaluation.report import write_report
from vllm_csp.evaluation.result_store import ResultStore


def result(name: str, *shares: int) -> PolicyResult:
    """One mask per photo, with so many of ten pixels right."""
    outcomes = [
        Outcome(f"q{number}", f"photo{number}", "cat", (Overlap(share, 10),), 1, "[SEG].")
        for number, share in enumerate(shares)
    ]
    return PolicyResult(name, "csp", outcomes, 0, 2.0, mean_costs([COST]))


def test_csv_and_json_say_the_same(tmp_path: Path) -> None:
    results = [result("dense", 8, 9, 7), result("csp", 7, 8, 6)]
    rows = write_report(tmp_path, results, {"data": "x"})
    content = json.loads((tmp_path / "report.json").read_text())
    assert content["policies"] == rows
    with (tmp_path / "policies.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [one["policy"] for one in read] == ["dense", "csp"]
    assert float(read[1]["giou_gain"]) == pytest.approx(-0.1, abs=1e-5)
    assert float(read[1]["gain_high"]) == pytest.approx(-0.1, abs=1e-5)
    assert float(read[0]["images_per_second"]) == 1.5
    with (tmp_path / "kinds.csv").open() as file:
        assert [one["kind"] for one in csv.DictReader(file)] == ["cat", "cat"]


@pytest.mark.skipif(not can_plot(), reason="matplotlib is missing")
def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    rows = write_report(tmp_path, [result("dense", 8, 9), result("csp 65", 7, 8)], {})
    plot_budget(tmp_path / "plot.png", rows, "photos")
    assert Image.open(tmp_path / "plot.png").size[0] > 400


def test_stored_results_are_found_only_with_their_setting(tmp_path: Path) -> None:
    store, setting = ResultStore(tmp_path / "answers"), {"mode": "force", "photos": ["a"]}
    kept = result("csp: a/b", 5)
    store.keep(kept, setting)
    assert store.find("csp: a/b", setting) == kept
    assert store.find("csp: a/b", {**setting, "mode": "generate"}) is None
    assert store.find("csp- a-b", setting) is None
