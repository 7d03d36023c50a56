"""The same arguments give the same sample, in every process; wrong ones are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from vllm_csp.masks import decode_mask
from vllm_csp.scenes import make_sample


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in ("chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.jpg")
    return folder


def write(folder: Path, *options: str, hash_seed: str = "0") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vllm_csp.scenes", str(folder), *options]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed, "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_two_processes_write_the_same_files(tmp_path: Path, photos: Path) -> None:
    options = ["--split", "val", "--count", "6", "--backgrounds", str(photos)]
    for name in ("1", "2"):
        sheet = ["--sheet", str(tmp_path / name / "sheet.png")]
        run = write(tmp_path / name, *options, *sheet, hash_seed=name)
        assert run.returncode == 0, run.stderr
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert files == ["scenes.json", "sheet.png", *(f"val-{n:06d}.png" for n in range(6))]
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes()


def test_the_folder_holds_the_samples(tmp_path: Path) -> None:
    assert write(tmp_path, "--split", "test", "--count", "3", "--first", "7").returncode == 0
    written = json.loads((tmp_path / "scenes.json").read_text())
    samples = {f"test-{seed:06d}.png": make_sample(seed, "test") for seed in (7, 8, 9)}
    for file, sample in samples.items():
        assert np.array_equal(Image.open(tmp_path / file), sample.image)
    expected = [(file, question) for file, s in samples.items() for question in s.questions]
    for entry, (file, question) in zip(written, expected, strict=True):
        assert (entry["image"], entry["kind"]) == (file, question.kind)
        assert (entry["text"], entry["answer"]) == (question.text, question.answer)
        for rle, mask in zip(entry["masks"], question.masks, strict=True):
            assert np.array_equal(decode_mask(rle), mask)


def test_the_size_does_not_change_what_is_asked() -> None:
    for seed in range(20):
        small, large = (make_sample(seed, "train", size=size) for size in (224, 448))
        assert small.scene == large.scene
        assert [q.text for q in small.questions] == [q.text for q in large.questions]
        assert small.image.size == (224, 224)
        assert small.questions[0].masks == () or small.questions[0].masks[0].shape == (224, 224)


def test_half_of_the_scenes_get_a_photo(photos: Path) -> None:
    files = sorted(photos.iterdir())
    samples = [make_sample(seed, "train", backgrounds=files) for seed in range(80)]
    assert 25 < sum(sample.scene.background == "photo" for sample in samples) < 55


@pytest.mark.parametrize(
    ("seed", "split", "size"), [(-1, "train", 448), (0, "dev", 448), (0, "val", 9)]
)
def test_wrong_arguments_are_refused(seed: int, split: str, size: int) -> None:
    with pytest.raises(ValueError, match="split is one of train, val, test"):
        make_sample(seed, split, size=size)  # type: ignore[arg-type]


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    run = write(tmp_path / "out", "--backgrounds", str(tmp_path))
    assert run.returncode == 2
    assert "no photos" in run.stderr
