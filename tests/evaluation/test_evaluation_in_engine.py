"""`vllm-csp eval` from the command line to the report, on the real engine and a real server."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.oracle import Recording, oracle_folder, recording, recordings
from tests.server import Server
from vllm_csp.serving.cli import app

# With an ignored region, with a sentence, with a shape of several polygons.
PHOTOS = ("d01", "d03", "d06")
ENGINE = {"dtype": "float32", "max_model_len": 1024, "kv_cache_memory_bytes": 1 << 25}
TOLERANCE = 1e-3  # rounding moves pixels at the masks' edges


@pytest.fixture(scope="module")
def reasonseg(oracle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the oracle's photos as a ReasonSeg folder with a split."""
    folder = tmp_path_factory.mktemp("reasonseg")
    (folder / "val").mkdir()
    for name in PHOTOS:
        one = recording(f"{name}-forced0")
        shutil.copy(one.image_file, folder / "val" / f"{name}{one.image_file.suffix}")
        labels = oracle_folder() / one.numbers["gt"][0]["labelme"]
        shutil.copy(labels, folder / "val" / f"{name}.json")
    return folder


def evaluate(*arguments: str | Path) -> None:
    done = CliRunner().invoke(app, ["eval", *map(str, arguments)])
    assert done.exit_code == 0, done.output


def rows(folder: Path) -> list[dict[str, Any]]:
    with (folder / "policies.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def report(oracle: Path, reasonseg: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two policies, each with an engine of its own."""
    output = tmp_path_factory.mktemp("report")
    evaluate(*arguments(reasonseg, output, "dense", "csp"))
    return output


def arguments(reasonseg: Path, output: Path, *policies: str) -> list[str | Path]:
    checkpoint = oracle_folder() / "checkpoint"
    chosen = [part for one in policies for part in ("--policy", one)]
    shared = ["--split", "val", "-c", checkpoint, "-o", output, "--engine", json.dumps(ENGINE)]
    return [reasonseg, *shared, *chosen]


def test_dense_gives_the_stored_scores(report: Path) -> None:
    stored = [recording(f"{name}-forced0").numbers["fp32"]["per_mask"][0] for name in PHOTOS]
    giou = sum(one["iou"] for one in stored) / len(stored)
    ciou = sum(one["intersection"] for one in stored) / sum(one["union"] for one in stored)
    dense, csp = rows(report)
    assert float(dense["giou"]) == pytest.approx(giou, abs=TOLERANCE)
    assert float(dense["ciou"]) == pytest.approx(ciou, abs=TOLERANCE)
    assert (dense["images"], dense["questions"], dense["skipped"]) == ("3", "3", "0")
    assert float(dense["mean_visual_tokens"]) == 256
    assert float(csp["mean_visual_tokens"]) == 88
    assert float(csp["flops_ratio"]) < 0.5
    assert float(csp["kv_ratio"]) < 1
    assert float(csp["questions_per_second"]) > 0


def test_finished_policies_are_not_asked_again(report: Path, reasonseg: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (report / "answers").iterdir()}
    evaluate(*arguments(reasonseg, report, "dense", "csp"))
    assert {file: file.stat().st_mtime_ns for file in (report / "answers").iterdir()} == before


@pytest.mark.slow
def test_a_shared_engine_gives_the_scores_of_an_own_one(
    report: Path, reasonseg: Path, tmp_path: Path
) -> None:
    """The grid is a guest of the engine that measures CLS attention."""
    evaluate(*arguments(reasonseg, tmp_path, "csp", "csp:cluster=cls"), "--share-engines")
    shared, cls = rows(tmp_path)
    assert shared["questions_per_second"] == ""
    own = rows(report)[1]
    assert float(shared["giou"]) == pytest.approx(float(own["giou"]), abs=TOLERANCE)
    assert float(cls["giou"]) != pytest.approx(float(own["giou"]), abs=1e-6)


def test_answers_of_a_server_are_judged(server: Server, tmp_path: Path) -> None:
    """Questions whose stored answers, with none, one and two masks, are taken for right."""
    questions = [scene_question(one, tmp_path) for one in asked()]
    (tmp_path / "scenes.json").write_text(json.dumps(questions))
    evaluate(
        *(
            tmp_path,
            "--base-url",
            f"{server.url}/v1",
            "--api-key",
            server.key,
            "-o",
            tmp_path / "out",
        ),
        *("--mode", "generate", "--format", "scenes"),
    )
    [row] = rows(tmp_path / "out")
    assert float(row["giou"]) == pytest.approx(1, abs=TOLERANCE)
    assert [float(row[name]) for name in ("right_number", "right_text")] == [1, 1]
    counts = {len(one["masks"]) for one in questions}
    assert counts == {0, 1, 2}
    assert (float(row["absent_noticed"]), float(row["present_missed"])) == (1, 0)


def asked() -> list[Recording]:
    """Whole answers to first questions in the default template."""
    return [
        one
        for one in recordings()
        if one.generated
        and not one.case["history"]
        and one.case["conv_template"] == "llava_v1"
        and one.numbers["max_new_tokens"] == 512
    ]


def scene_question(one: Recording, folder: Path) -> dict[str, Any]:
    shutil.copy(one.image_file, folder)
    return {
        "image": one.image_file.name,
        "kind": one.case["id"],
        "text": one.question_text,
        "answer": one.text("fp32"),
        "masks": one.masks("fp32"),
    }


@pytest.mark.parametrize(
    "wanted", ["csp:mean=90", "dense:sam_image_size=512", "dense:sam_quantization=int8"]
)
def test_what_only_an_own_engine_can_do_is_not_asked_of_a_server(
    reasonseg: Path, tmp_path: Path, wanted: str
) -> None:
    place = ["--base-url", "http://127.0.0.1:1", "--output", str(tmp_path)]
    done = CliRunner().invoke(
        app, ["eval", str(reasonseg), "--split", "val", *place, "--policy", wanted]
    )
    assert done.exit_code == 1
    assert "use --checkpoint" in done.output


def test_dense_beside_another_policy_is_not_asked_of_a_server(
    reasonseg: Path, tmp_path: Path
) -> None:
    place = ["--base-url", "http://127.0.0.1:1", "--output", str(tmp_path)]
    chosen = ["--policy", "dense", "--policy", "csp"]
    done = CliRunner().invoke(app, ["eval", str(reasonseg), "--split", "val", *place, *chosen])
    assert done.exit_code == 1
    assert "no policy `dense` beside its own" in done.output


def test_without_model_or_server_it_says_what_to_name(reasonseg: Path) -> None:
    done = CliRunner().invoke(app, ["eval", str(reasonseg), "--split", "val"])
    assert done.exit_code == 1
    assert "--checkpoint" in done.output
