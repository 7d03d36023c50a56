"""Folders of PNG masks: the same files at every resume, and never taken for photos."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.serving.batch.rows import answered_line
from tests.serving.batch.test_journal import failed, written
from vllm_csp.serving.batch.formats import mask_folder
from vllm_csp.serving.batch.formats.mask_folder import write_mask_folder
from vllm_csp.serving.batch.sources.photo_set import PhotoSet, finds_masks
from vllm_csp.serving.batch.sources.source import Asking


def pngs(folder: Path) -> list[str]:
    return sorted(str(file.relative_to(folder)) for file in folder.glob("**/*.png"))


def test_rows_that_are_answered_later_move_no_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a run with failures and its `--resume` write it, one after the other."""
    monkeypatch.setattr(mask_folder, "PER_FOLDER", 2)
    lines = [answered_line(name, place) for place, name in enumerate("abcdef")]
    first = written(tmp_path / "first.jsonl", failed("a", 0), *lines[1:3], failed("d", 3), lines[4])
    write_mask_folder(first, tmp_path / "masks")
    before = pngs(tmp_path / "masks")
    write_mask_folder(written(tmp_path / "second.jsonl", *lines), tmp_path / "masks")
    assert before == ["0000/b.0.png", "0001/c.0.png", "0002/e.0.png"]
    after = pngs(tmp_path / "masks")
    assert after == [f"{place // 2:04d}/{name}.0.png" for place, name in enumerate("abcdef")]
    index = (tmp_path / "masks" / "index.jsonl").read_text().splitlines()
    assert [json.loads(line)["file"] for line in index] == after


@pytest.mark.parametrize(
    ("place", "masks", "found"),
    [
        ("photos", "photos/masks", True),
        ("photos", "photos", True),
        ("photos", "masks", False),
        ("photos/**/*.png", "photos/masks", True),
        ("photos/**/*.p?g", "photos/masks", True),
        ("photos/**", "photos/a/masks", True),
        ("photos/*/*/*", "photos/masks", True),
        ("**/*.png", "masks", True),
        ("./photos/../**/*.png", "masks", True),
        ("photos/m*/000[0-9]/*.png", "photos/masks", True),
        ("photos/**/*.jpg", "photos/masks", False),
        ("photos/*.png", "photos/masks", False),
        ("photos/*/*.png", "photos/masks", False),
        ("photos/**/*.png", "masks", False),
        ("photos/a.png", "photos/masks", False),
        ("in.jsonl", "masks", False),
    ],
)
def test_masks_among_photos_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, masks: str, *, found: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    assert finds_masks(Path(place), Path(masks)) == found
    written_masks = tmp_path / masks / "0000"
    written_masks.mkdir(parents=True)
    (written_masks / "a.png%230.0.png").touch()
    if not place.endswith(".jsonl"):
        asked = [row.subject.image for row in PhotoSet(place, ["?"], Asking()).rows()]
        assert any("%230" in name for name in asked) == found
