"""Scenes as the generator writes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vllm_csp.datasets.item import DatasetError
from vllm_csp.datasets.scenes import read_scenes
from vllm_csp.scenes import make_sample
from vllm_csp.scenes.folder import write_scenes


def test_what_the_generator_writes_is_read_back(tmp_path: Path) -> None:
    samples = [(f"test-{seed}", make_sample(seed, "test", size=128)) for seed in range(3)]
    write_scenes(tmp_path, samples)
    photos = read_scenes(tmp_path)
    assert [photo.path.stem for photo in photos] == [name for name, _ in samples]
    for photo, (_, sample) in zip(photos, samples, strict=True):
        items = photo.items()
        assert Image.open(photo.path).size == (128, 128)
        assert [item.question for item in items] == [one.text for one in sample.questions]
        assert [item.answer for item in items] == [one.answer for one in sample.questions]
        for item, question in zip(items, sample.questions, strict=True):
            assert (item.kind, item.num_masks) == (question.kind, len(question.masks))
            for raster, mask in zip(item.rasters(), question.masks, strict=True):
                assert np.array_equal(raster == 1, np.asarray(mask, bool))


def test_a_photo_outside_the_folder_is_refused(tmp_path: Path) -> None:
    question = {"image": "../a.png", "kind": "x", "text": "?", "answer": "", "masks": []}
    (tmp_path / "scenes.json").write_text(json.dumps([question]))
    with pytest.raises(DatasetError, match="outside"):
        read_scenes(tmp_path)
