"""Which format a folder is of, and which of its photos are taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from tests.datasets.coco_folder import write_coco
from vllm_csp.datasets.item import DatasetError
from vllm_csp.datasets.registry import Format, Source, detect_format, read_photos

FILES = {
    Format.SCENES: ["scenes.json"],
    Format.COCO: ["instances.json"],
    Format.REFCOCO: ["instances.json", "refs(unc).p"],
    Format.SEMANTIC: ["labels.json"],
    Format.REASONSEG: ["val/a.json"],
}


@pytest.mark.parametrize("expected", FILES)
def test_the_format_is_told_from_the_files(tmp_path: Path, expected: Format) -> None:
    for name in FILES[expected]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("[]")
    assert detect_format(Source(tmp_path)) == expected


def test_a_folder_of_no_known_kind_lists_them(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"scenes\.json.*--format"):
        detect_format(Source(tmp_path))


@pytest.fixture
def many(tmp_path: Path) -> Source:
    questions = []
    for number in range(20):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number:02}.png")
        one = {"image": f"{number:02}.png", "kind": "k", "text": "?", "answer": "", "masks": []}
        questions += [one, one]
    (tmp_path / "scenes.json").write_text(json.dumps(questions))
    return Source(tmp_path)


def names(source: Source) -> list[str]:
    return [photo.path.stem for photo in read_photos(source)]


def test_a_limit_draws_photos_by_seed_and_keeps_their_order(many: Source) -> None:
    drawn = names(replace(many, limit=5))
    assert len(drawn) == 5
    assert drawn == sorted(drawn) == names(replace(many, limit=5))
    assert drawn != names(replace(many, limit=5, seed=1))
    assert len(names(replace(many, limit=100))) == 20


def test_photos_can_be_named_with_or_without_suffix(many: Source) -> None:
    assert names(replace(many, only=["03", "07.png"])) == ["03", "07"]
    with pytest.raises(DatasetError, match="no photo"):
        names(replace(many, only=["nowhere"]))


def test_a_template_needs_a_place_for_the_class(tmp_path: Path) -> None:
    write_coco(tmp_path)
    with pytest.raises(DatasetError, match="has no"):
        read_photos(Source(tmp_path, template="Segment it."))
