"""What the real tool writes, read by the libraries that people read it with."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet
from pycocotools.coco import COCO

from benchmarks.overlap import iou
from tests.server import Server
from tests.serving.batch.conftest import Undisturbed
from tests.serving.batch.rows import answered_line, write_lines, write_photos
from tests.serving.batch.tool import ask, by_id
from vllm_csp.masks import decode_mask
from vllm_csp.serving.batch.formats.choice import WRITERS, OutputFormat
from vllm_csp.serving.batch.formats.mask_folder import file_name
from vllm_csp.serving.batch.outcome import masks_of
from vllm_csp.serving.batch.output import Output

Lines = dict[str, dict[str, Any]]


@pytest.fixture
def journal(undisturbed: Undisturbed) -> Path:
    """Of the undisturbed run."""
    return undisturbed.source.parent.parent / "out.jsonl"


def mask_of(line: dict[str, Any]) -> dict[str, Any]:
    [mask] = masks_of(line["response"]["body"])
    return mask


def test_lines_are_those_of_openais_batches(undisturbed: Undisturbed) -> None:
    for name, line in undisturbed.answers.items():
        assert list(line) == ["id", "custom_id", "response", "error", "input"]
        assert (line["custom_id"], line["error"]) == (name, None)
        response = line["response"]
        assert response["status_code"] == 200
        assert response["request_id"] == response["body"]["id"]
        assert response["body"]["choices"][0]["message"]["content"] == "[SEG]."


def test_folder_to_coco_dataset(server: Server, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    asked = [option for text in ("Cup?", "Cat?") for option in ("-q", text)]
    done = ask(server, tmp_path / "photos", tmp_path / "out.json", *asked, "--mode", "force")
    assert done.code == 0, done.messages
    assert done.summary["images_read"] == 3
    answers = by_id(tmp_path / "out.json.journal.jsonl")
    coco = COCO(tmp_path / "out.json")
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == photos
    assert [one["name"] for one in coco.loadCats(coco.getCatIds())] == ["Cup?", "Cat?"]
    assert len(coco.getAnnIds()) == 6
    for one in coco.loadAnns(coco.getAnnIds()):
        line = answers[one["custom_id"]]
        [image] = coco.loadImgs(one["image_id"])
        assert image["file_name"] == line["input"]["image"]
        [category] = coco.loadCats(one["category_id"])
        assert category["name"] == line["input"]["question"]
        assert np.array_equal(coco.annToMask(one).astype(bool), decode_mask(mask_of(line)))


def test_coco_to_coco_results(server: Server, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "images", 2)
    content = {
        "images": [
            {"id": 70 + n, "file_name": name, "width": 64 + 16 * n, "height": 48}
            for n, name in enumerate(photos)
        ],
        "categories": [{"id": 3, "name": "cup"}],
        "annotations": [{"id": n, "image_id": 70 + n, "category_id": 3} for n in range(2)],
    }
    truth = tmp_path / "instances.json"
    truth.write_text(json.dumps(content))
    done = ask(server, truth, tmp_path / "out.json", "--mode", "force")
    assert done.code == 0, done.messages
    found = COCO(truth).loadRes(str(tmp_path / "out.json"))
    answers = by_id(tmp_path / "out.json.journal.jsonl")
    assert sorted(answers) == ["70-3", "71-3"]
    for one in found.loadAnns(found.getAnnIds()):
        mask = mask_of(answers[one["custom_id"]])
        assert (one["image_id"], one["category_id"]) == (int(one["custom_id"][:2]), 3)
        assert (one["area"], one["score"]) == (mask["area"], mask["score"])
        assert list(one["bbox"]) == mask["bbox"]
        assert np.array_equal(found.annToMask(one).astype(bool), decode_mask(mask))


def test_parquet(journal: Path, undisturbed: Undisturbed, tmp_path: Path) -> None:
    WRITERS[OutputFormat.PARQUET](journal, tmp_path / "out.parquet")
    rows = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["custom_id"] for row in rows] == [f"row {n}" for n in range(len(rows))]
    for row in rows:
        line = undisturbed.answers[row["custom_id"]]
        assert row["masks"] == masks_of(line["response"]["body"])
        assert (row["answer"], row["error"]) == ("[SEG].", None)
        assert (row["image"], row["question"]) == (
            line["input"]["image"],
            line["input"]["question"],
        )


def test_png_masks(journal: Path, undisturbed: Undisturbed, tmp_path: Path) -> None:
    WRITERS[OutputFormat.MASKS](journal, tmp_path / "masks")
    index = [json.loads(one) for one in (tmp_path / "masks" / "index.jsonl").open()]
    assert [one["custom_id"] for one in index] == [f"row {n}" for n in range(len(index))]
    for one in index:
        picture = Image.open(tmp_path / "masks" / one["file"])
        assert picture.mode == "1"
        expected = decode_mask(mask_of(undisturbed.answers[one["custom_id"]]))
        assert np.array_equal(np.asarray(picture), expected)
        assert one["area"] == expected.sum()


def test_png_answers_become_the_same_coco(server: Server, tmp_path: Path) -> None:
    """Rows may ask for either format of masks."""
    [photo] = write_photos(tmp_path, 1)
    body = {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": photo}},
                    {"type": "text", "text": "Where is the cup?"},
                ],
            }
        ]
    }
    rows = [
        {
            "custom_id": kind,
            "body": {**body, "segmentation": {"mode": "force", "mask_format": kind}},
        }
        for kind in ("rle", "png")
    ]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    done = ask(server, tmp_path / "in.jsonl", tmp_path / "out.json")
    assert done.code == 0, done.messages
    coco = COCO(tmp_path / "out.json")
    assert len(coco.getImgIds()) == len(coco.getCatIds()) == 1
    one, other = coco.loadAnns(coco.getAnnIds())
    assert iou(one["segmentation"], other["segmentation"]) >= 0.999


@pytest.mark.parametrize("name", WRITERS)
def test_outputs_do_not_depend_on_the_order_of_answers(
    undisturbed: Undisturbed, tmp_path: Path, name: OutputFormat
) -> None:
    lines = copy.deepcopy(list(undisturbed.answers.values()))
    for number, line in enumerate(lines):
        line["input"] |= {"image_id": number % 2, "category_id": 1 + number // 2}
    for order, journal in ((1, "one"), (-1, "two")):
        write_lines(tmp_path / f"{journal}.jsonl", lines[::order])
        WRITERS[name](tmp_path / f"{journal}.jsonl", tmp_path / journal)
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one == two
    assert all(one.values())


def contents(output: Path) -> dict[str, bytes]:
    """Of a file, or of all files of a folder."""
    files = [file for file in output.rglob("*") if file.is_file()] if output.is_dir() else [output]
    return {str(file.relative_to(output)): file.read_bytes() for file in files}


def test_every_format_writes_names_that_are_not_utf8(tmp_path: Path) -> None:
    """As `os.walk` gives them; each writes them as the journal does, or in a way of its own."""
    image = os.fsdecode(b"caf\xe9.png")
    line = answered_line(f"{image}#0", 0, image, image_id=1, category_id=1)
    for name in OutputFormat:
        if name != OutputFormat.AUTO:
            write_lines(tmp_path / f"{name}.journal.jsonl", [line])
            Output(tmp_path / str(name), name).write()
    escaped = r"caf\udce9.png"
    [row] = parquet.read_table(tmp_path / "parquet").to_pylist()
    assert (row["image"], row["custom_id"], row["error"]) == (escaped, f"{escaped}#0", None)
    assert len(row["masks"]) == 1
    content = json.loads((tmp_path / "coco").read_text())
    assert content["images"][0]["file_name"] == image
    [entry] = json.loads((tmp_path / "coco-results").read_text())
    assert entry["custom_id"] == f"{image}#0"
    [mask] = (tmp_path / "masks" / "0000").iterdir()
    assert mask.name == "caf%ED%B3%A9.png%230.0.png"


def test_file_names_of_ids_differ_and_stay_in_their_folder() -> None:
    names = ["a/b", "a%2Fb", "..", "../x", ".", "a b", "ä", "x" * 300, "x" * 301, "\ud800"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(files)
    for name in files:
        assert "/" not in name and not name.startswith(".") and len(name) <= 180
