"""`vllm-csp bench`, the ceiling card, and what all systems are asked."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks import client_files
from benchmarks.calls import calls, plan
from benchmarks.ceiling import Model, Rates, llm_decode, llm_prefill
from benchmarks.e2e import parse as e2e_arguments
from benchmarks.overlap import accuracy, overlaps
from benchmarks.questions import photo
from benchmarks.report import report_rows
from vllm_csp.images import image_key
from vllm_csp.masks import encode_mask
from vllm_csp.serving.cli import app
from vllm_csp.serving.commands.bench import BENCHMARKS


def test_every_subcommand_has_its_benchmarks_own_help() -> None:
    assert all(
        f" {name} " in CliRunner().invoke(app, ["bench", "--help"]).output for name in BENCHMARKS
    )
    for name in BENCHMARKS:
        result = CliRunner().invoke(app, ["bench", name, "--help"])
        assert result.exit_code == 0, result.output
        module = importlib.import_module(f"benchmarks.{name.replace('-', '_')}")
        assert module.__doc__.splitlines()[0] in result.output


def test_the_ceiling_is_what_one_counts_by_hand() -> None:
    """By hand for LISA-7B and a prompt of 316 rows: 4.1 TFLOP; 13 GB of weights per step."""
    lisa_7b = Model(layers=32, hidden=4096, ffn=11008, heads=32)
    prefill = llm_prefill(lisa_7b, 60, "bfloat16")
    assert prefill.flop == pytest.approx(4.1e12, rel=0.03)
    step = llm_decode(lisa_7b, 316, "bfloat16")
    assert step.bytes == pytest.approx(13.4e9, rel=0.03)
    rates = Rates(flops=800e12, bytes=4.8e12)
    assert prefill.row(rates)["bound_by"] == "operations"
    assert step.row(rates)["bound_by"] == "bytes"
    assert step.seconds(rates) == pytest.approx(2.8e-3, rel=0.03)


def test_no_photo_is_asked_about_twice() -> None:
    arguments = e2e_arguments(["--concurrency", "1", "4", "--per-image", "1", "8"])
    cells = list(plan(arguments))
    assert [(one.clients, one.per_image) for one in cells] == [(1, 1), (4, 1), (1, 8), (4, 8)]
    asked = [one.calls(scenes=False) for one in cells]
    files = [one.file for wanted in asked for one in wanted]
    assert len(set(files)) == len(files)
    assert all(sum(len(one.questions) for one in wanted) >= 16 for wanted in asked)
    assert asked[2][0].questions != asked[2][1].questions
    assert calls(3, 1, 0) == calls(3, 1, 0)


def test_scenes_come_with_the_right_masks() -> None:
    for call in calls(16, 8, 0, scenes=True):
        assert len(call.questions) == len(call.targets) == 8
        answers = [[encode_mask(mask, 1.0, 0, "rle")] for mask in call.targets]
        assert accuracy(answers, call.targets) == pytest.approx(1, abs=1e-5)
        assert accuracy([[], *answers[1:]], call.targets) == pytest.approx(7 / 8, abs=1e-5)
        assert overlaps(answers[0], answers[0]) == [1]


def test_photos_differ_and_stay_the_same() -> None:
    assert len({image_key(photo(number)) for number in range(20)}) == 20
    assert image_key(photo(3)) == image_key(photo(3))


def test_the_files_are_what_vllms_client_reads(tmp_path: Path) -> None:
    from vllm.benchmarks.datasets.datasets import CustomImageDataset

    file = client_files.write_files(tmp_path, photos=3, per_image=2)
    data = CustomImageDataset(dataset_path=str(file)).data
    assert len(data) == 6
    parts = CustomImageDataset._process_image_files(
        data[0]["image_files"], ensure_client_side_data=True
    )
    assert parts["image_url"]["url"].startswith("data:image/")
    command = client_files.command(file, 6)
    assert "--dataset-name custom_image" in command and str(file) in command


def test_the_commands_flags_exist(tmp_path: Path) -> None:
    import shlex

    from vllm.benchmarks.serve import add_cli_args
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    words = shlex.split(client_files.command(tmp_path / "questions.jsonl", 6))
    arguments = parser.parse_args(words[3:])
    assert arguments.extra_body == {"segmentation": {"mode": "force"}}


def test_rows_are_kept_with_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.report.RESULTS", tmp_path / "new")
    report_rows("some", "title", [{"a": 1, "b": 2.5}], {"repeats": 1})
    document = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert document == json.loads((tmp_path / "new" / "some.json").read_text())
    assert document["rows"] == [{"a": 1, "b": 2.5}]
    assert {"device", "torch", "vllm", "repeats"} <= set(document["setting"])
    assert (tmp_path / "new" / "some.csv").read_text().splitlines() == ["a,b", "1,2.5"]
