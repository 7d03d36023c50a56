"""Small pieces of training data, and a tokenizer made of their texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.oracle import oracle_folder
from vllm_csp.models.tokenizer import LisaTokenizer
from vllm_csp.scenes import make_sample
from vllm_csp.scenes.phrases import ANSWERS
from vllm_csp.training.questions import PHRASINGS, Asked, Picture
from vllm_csp.training.vocabulary import write_vocabulary


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of real weights and photos; the test is skipped where it is not at hand."""
    folder = oracle_folder().parent / "assets"
    if not folder.is_dir():
        pytest.skip("needs the folder of weights and photos beside the recorded LISA outputs")
    return folder


@pytest.fixture(scope="session")
def vocabulary_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary trained on a few scenes."""
    folder = tmp_path_factory.mktemp("vocabulary")
    samples = [make_sample(seed, "train", size=64) for seed in range(60)]
    texts = [question.text for sample in samples for question in sample.questions]
    write_vocabulary(folder, [*texts, *PHRASINGS, *ANSWERS.values()], pieces=300)
    return folder


@pytest.fixture(scope="session")
def tokenizer(vocabulary_folder: Path) -> LisaTokenizer:
    """Its tokenizer."""
    return LisaTokenizer.from_pretrained(vocabulary_folder)


@pytest.fixture
def picture() -> Picture:
    """A picture with questions for one target, two targets, and none."""
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    left, right = np.zeros((60, 80), np.uint8), np.zeros((60, 80), np.uint8)
    left[10:50, 15:35] = 1
    right[20:40, 50:70] = 1
    questions = (
        Asked("Where is the red circle?", ANSWERS[1], (left,)),
        Asked("Please segment the red circle and the blue star.", ANSWERS[2], (left, right)),
        Asked("Where is the heart?", ANSWERS[0], ()),
    )
    return Picture(Image.fromarray(pixels), questions)
