"""Stopwatch, plots, the rows of `e2e`, and the engines that parity compares."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from vllm.model_executor.models.llama import LlamaForCausalLM

from benchmarks import ceiling, e2e, encode, encoders, parity
from benchmarks.cells import run_cell
from benchmarks.plots import plot_bars, plot_lines
from benchmarks.systems import SMALLER, SMALLER_TOKENS
from benchmarks.waterfall import PARTS, Stopwatch, watch_model, watch_process
from vllm_csp.config import CspConfig
from vllm_csp.models.lisa import LISAForCausalLM
from vllm_csp.readout.recorder import Recorder
from vllm_csp.sam.mask_service import MaskService
from vllm_csp.serving import segmenter
from vllm_csp.tokens import policy


def test_a_stopwatch_adds_up_by_part_and_changes_nothing() -> None:
    waits: list[int] = []
    watch = Stopwatch(lambda: waits.append(1))

    def work(rows: int) -> int:
        time.sleep(0.01)
        return 2 * rows

    model = SimpleNamespace(forward=work)
    watch.on(model, "forward", lambda rows: "prefill" if rows > 8 else "decode")
    assert [model.forward(256), model.forward(1), model.forward(1)] == [512, 2, 2]
    assert 0.01 <= watch.seconds["prefill"] < watch.seconds["decode"] < 10
    assert len(waits) == 6


def test_what_the_waterfall_watches_is_there() -> None:
    watched: list[tuple[Any, str]] = []

    class Listing(Stopwatch):
        def on(self, owner: Any, name: str, part: Any) -> None:
            assert callable(part) or part in PARTS
            watched.append((owner, name))

    watch = Listing(lambda: None)
    model = SimpleNamespace(
        masks=MaskService, language_model=LlamaForCausalLM, recorder=Recorder, lisa=LISAForCausalLM
    )
    watch_model(model, watch)
    watch_process(watch, segmenter)
    for owner, name in watched:
        assert callable(getattr(model.lisa if owner is model else owner, name))
    assert len(watched) == 8


def test_the_ceiling_of_a_machine_that_is_too_slow_to_measure_is_not_zero() -> None:
    rates = ceiling.measured_rates("float32", seconds=1e-6)
    assert 0 < rates.flops < float("inf") and 0 < rates.bytes < float("inf")


def test_plots_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    rows = [{"x": x, "y": x * slope, "by": slope} for x in (1, 4, 16) for slope in (1, 2)]
    plot_lines(tmp_path / "lines.png", rows, "x", "y", "by", "lines")
    plot_bars(tmp_path / "bars.png", {"a": 1.0, "b": 2.0}, "ms", "bars")
    assert all(file.stat().st_size > 1000 for file in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 2


def test_lines_of_one_point_are_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    drawn: list[Any] = []
    monkeypatch.setattr("benchmarks.plots.plot_bars", lambda *given: drawn.append(given[1:]))
    rows = [{"x": 16, "y_z": slope, "by": f"system {slope}"} for slope in (1, 2)]
    plot_lines(tmp_path / "lines.png", rows, "x", "y_z", "by", "lines")
    assert drawn == [({"system 1": 1.0, "system 2": 2.0}, "y z", "lines, x 16")]


def cell(per_image: int, clients: int, rate: float) -> dict[str, Any]:
    counts = {"sam_hits": 0, "prefix_tokens": 0}
    times = {"p50_ms": 1.0, "p95_ms": 2.0}
    return {"per_image": per_image, "concurrency": clients, "rate": rate, **times, **counts}


def test_ratios_are_to_rows_of_as_many_clients_and_to_the_one_of_the_loop() -> None:
    found = {
        "reference": {"rows": [cell(1, 1, 2.0), cell(8, 1, 2.5)], "masks": []},
        "dense": {"rows": [cell(1, 16, 20.0), cell(8, 16, 90.0)], "masks": []},
        "csp-65": {"rows": [cell(1, 16, 30.0), cell(8, 16, 99.0)], "masks": []},
    }
    row = e2e._row("csp-65", found["csp-65"]["rows"][1], found)
    assert (row["over_reference"], row["over_dense"], row["over_alone"]) == (39.6, 1.1, 3.3)
    assert (row["over_huggingface"], row["iou"], row["giou"]) == ("", "", "")
    assert e2e._row("dense", found["dense"]["rows"][1], found)["over_alone"] == 4.5


def test_systems_with_smaller_sam_images_are_compared_with_both_kinds_of_baseline() -> None:
    found = {
        "reference": {"rows": [cell(1, 1, 2.0)], "masks": []},
        "reference@512": {"rows": [cell(1, 1, 4.0)], "masks": []},
        "dense": {"rows": [cell(1, 16, 10.0)], "masks": []},
        "dense@512": {"rows": [cell(1, 16, 20.0)], "masks": []},
    }
    row = e2e._row("dense@512", found["dense@512"]["rows"][0], found)
    assert (row["over_reference"], row["over_small_reference"], row["over_dense"]) == (10, 5, 2)
    assert row["over_small_huggingface"] == ""
    assert e2e._row("dense", found["dense"]["rows"][0], found)["over_small_reference"] == ""


@pytest.mark.parametrize("name", ["dense@512", "huggingface@768", "csp-65"])
def test_names_of_systems_are_taken(name: str) -> None:
    assert e2e.parse(["--systems", name]).systems == [name]


@pytest.mark.parametrize("name", ["dence", "dense@", "dense@small", "@512", ""])
def test_names_of_no_system_are_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        e2e.parse(["--systems", name])
    assert "is none of reference, huggingface, dense" in capsys.readouterr().err


def test_sizes_that_no_server_takes_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        e2e.parse(["--systems", "dense@500"])
    assert "multiple of 64" in capsys.readouterr().err


def test_a_smaller_image_has_the_tokens_of_csp_on_average() -> None:
    mean = policy("csp", 32, 256, preset="65").mean_visual_tokens_per_layer
    assert pytest.approx(mean, rel=0.1) == SMALLER_TOKENS
    with pytest.raises(SystemExit):
        e2e.parse(["--systems", SMALLER, "--checkpoint", "somewhere"])
    assert SMALLER not in e2e.parse(["--checkpoint", "somewhere"]).systems


def test_whole_stages_leave_nothing_out() -> None:
    settings = CspConfig.from_section(parity.settings("whole", 8), "here")
    schedule = policy(settings.policy, 8, 256, **settings.knobs)
    assert [stage.budget for stage in schedule.stages] == [256, 256, 256]
    assert ("csp B", "csp A") in parity.pairs(["A", "B"])
    assert ("whole B", "dense B") in parity.pairs(["A", "B"])
    assert ("unshared B", "csp B") in parity.pairs(["A", "B"])


@pytest.mark.parametrize(
    ("one", "other", "share"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1),
        ([1, 2, 9, 4], [1, 2, 3, 4], 0.5),
        ([1], [1, 2], 0.5),
        ([], [1], 0),
        ([], [], 1),
    ],
    ids=str,
)
def test_tokens_count_as_the_same_up_to_the_first_other_one(
    one: list[int], other: list[int], share: float
) -> None:
    assert parity.same_tokens(one, other) == parity.same_tokens(other, one) == share


GOOD = {
    "engine": "captured A",
    "against": "csp A",
    "iou": 1.0,
    "same_tokens": 0.9,
    "replays": 5,
    "wrong": "",
}


@pytest.mark.parametrize(
    ("change", "with_graphs", "off"),
    [
        ({}, True, False),
        ({"replays": 0}, True, True),
        ({"replays": 0}, False, False),
        ({"same_tokens": 0.2}, True, True),
        ({"engine": "unshared A", "same_tokens": 0.2, "replays": 0}, True, False),
        ({"iou": 0.5}, True, True),
        ({"wrong": "out of memory"}, True, True),
        ({"engine": "csp A", "against": "dense A"}, True, True),
        ({"engine": "csp A", "against": "dense A", "iou": 0.5}, True, False),
    ],
    ids=str,
)
def test_parity_is_off(change: dict[str, Any], with_graphs: bool, off: bool) -> None:
    assert parity.is_off({**GOOD, **change}, parity.parse([]), with_graphs) == off


def test_a_cell_runs_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "")
    with pytest.raises(SystemExit, match="usage: vllm-csp bench client-files"):
        run_cell("benchmarks.client_files", ["--no-such-option"])


def test_cells_of_encoders_that_do_not_exist_are_left_out() -> None:
    assert encoders.exists("vit_h", "shipped", "auto")
    assert encoders.exists("mobile_sam", "shipped", "auto")
    assert not encoders.exists("clip", "shipped", "auto")
    assert not encoders.exists("clip", "ours", "fused")
    assert encoders.exists("mobile_sam", "ours", "unfused")
    assert not encoders.exists("vit_h", "ours", "unfused")
    assert encoders.exists("vit_h", "int8", "biased")
    assert encoders.exists("mobile_sam@512", "int8", "auto")
    assert not encoders.exists("clip", "int8", "auto")
    assert encoders.exists("mobile_sam@512", "ours", "unfused")


def test_an_encoder_of_smaller_pictures_has_fewer_operations() -> None:
    whole, half = encoders.work("mobile_sam"), encoders.work("mobile_sam@512")
    assert half.bytes == whole.bytes
    assert half.flop < 0.3 * whole.flop


@pytest.mark.parametrize(
    "name", ["vit", "clip@224", "vit_h@", "vit_h@big", "vit_h@0", "mobile_sam@500"]
)
def test_names_of_no_encoder_are_refused(name: str) -> None:
    with pytest.raises(SystemExit):
        encode.parse(["--encoders", name])
