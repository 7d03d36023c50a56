"""The GPU's script, without one: its steps, what it writes for them, its report."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
import time
from importlib.metadata import Distribution
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.checkpoint import Size, write_checkpoint
from benchmarks.random_weights import ANSWER
from benchmarks.timed_steps import SECONDS_TO_END, Step
from vllm_csp.models.weights import checkpoint_shapes


@pytest.mark.parametrize("tiny", [False, True], ids=["LISA-7B", "tiny"])
def test_every_step_is_a_command_that_its_benchmark_understands(tiny: bool) -> None:
    for step in gpu.steps(tiny):
        _, _, module, *options = step.command
        importlib.import_module(module).parse(options)


def test_two_runs_are_enough_if_the_guesses_are_right() -> None:
    guesses = [step.guess for step in gpu.steps()]
    assert sum(guesses[:4]) < 540 - SECONDS_TO_END
    assert sum(guesses[4:]) < 540 - SECONDS_TO_END


def test_the_plugin_is_found_without_being_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **which: ())
    [info] = gpu.entry_points(tmp_path).glob("*.dist-info")
    found = Distribution.at(info).entry_points
    assert {(one.group, one.name) for one in found} == {(group, "vllm_csp") for group in gpu.GROUPS}
    assert Distribution.at(info).name == "vllm-csp"


def test_a_hollow_checkpoint_of_lisas_size_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.checkpoint.CACHE", tmp_path)
    folder = write_checkpoint(Size(layers=32, hidden=4096, large=True), hollow=True)
    shapes = checkpoint_shapes(folder)
    assert shapes["model.layers.31.mlp.down_proj.weight"] == (4096, 11008)
    assert shapes["model.visual_model.image_encoder.pos_embed"] == (1, 64, 64, 1280)
    (folder / ANSWER).unlink()
    assert write_checkpoint(Size(layers=32, hidden=4096, large=True), hollow=True) == folder
    assert (folder / ANSWER).exists(), "one from before answers were written is completed"
    file = folder / "model.safetensors"
    assert file.stat().st_size > 14e9
    assert file.stat().st_blocks * 512 < 1e6
    vision = json.loads((folder / "clip" / "config.json").read_text())
    assert (vision["hidden_size"], vision["image_size"]) == (1024, 224)


@pytest.mark.parametrize(("tokens", "side"), [(81, 126), (576, 336), (1024, 448)])
def test_image_towers_of_other_sizes(
    tokens: int, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.checkpoint.CACHE", tmp_path)
    folder = write_checkpoint(Size(layers=1, hidden=128, image_tokens=tokens))
    assert json.loads((folder / "clip" / "config.json").read_text())["image_size"] == side
    with pytest.raises(ValueError, match="no square"):
        write_checkpoint(Size(image_tokens=200))


def test_a_run_reports_and_says_whether_all_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OUT", raising=False)
    rows = '{"setting": {"memory": {"dense": ["KV"]}}, "rows": [{"a": 1, "b": 2}]}'
    code = "import os, pathlib, sys; folder = pathlib.Path(os.environ['VLLM_CSP_BENCH_RESULTS']); "
    code += "folder.mkdir(exist_ok=True); "
    code += f"(folder / 'encode.json').write_text({rows!r})"
    made = [
        Step("encode", (sys.executable, "-c", code), 1, ("encode.json",)),
        Step("e2e", (sys.executable, "-c", "raise SystemExit('no memory')"), 1, ("e2e.json",)),
    ]
    monkeypatch.setattr(gpu, "steps", lambda tiny: made)
    given = tmp_path / "given"
    given.mkdir()
    options = ["--output", str(tmp_path / "runs"), "--hand-over", str(given)]
    with pytest.raises(SystemExit) as ended:
        gpu.main([*options, "--limit", "60"])
    assert ended.value.code == 1
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["results"]["encode"]["rows"] == [{"a": 1, "b": 2}]
    text = (given / "report.md").read_text()
    assert "| e2e | failed |" in text and "no memory" in text and "| 1 | 2 |" in text
    # On another machine, with what came back; nothing is done twice.
    ended_before = time.time()
    shutil.unpack_archive(given / "gpu.tar.gz", tmp_path / "other")
    encode = [*("--output", str(tmp_path / "other")), "--only", "encode"]
    with pytest.raises(SystemExit) as ended:
        gpu.main(encode)
    assert ended.value.code == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["results"]["encode"]["rows"] == [{"a": 1, "b": 2}]
    assert not (tmp_path / "other" / "results" / "encode.json").stat().st_mtime > ended_before
    with pytest.raises(SystemExit):
        gpu.main([*encode, "--hand-over", str(tmp_path / "other")])
    assert not (tmp_path / "other" / "gpu.tar.gz").exists(), "what is there need not be handed over"


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_the_whole_run_on_a_tiny_geometry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUT", raising=False)
    with pytest.raises(SystemExit) as ended:
        gpu.main(["--tiny", "--output", str(tmp_path), "--limit", "2800"])
    report = json.loads((tmp_path / "report.json").read_text())
    assert ended.value.code == 0, report["steps"]
    assert len(report["results"]) == len(gpu.NAMES)
    waterfall = report["results"]["waterfall"]["rows"]
    spent = {row["part"]: row["ms_per_question"] for row in waterfall}
    assert min(spent["mask decode"], spent["encode answer"]) > 0.2, "answers had masks"
    assert {row["iou"] for row in report["results"]["streams"]["rows"]} == {1.0}
