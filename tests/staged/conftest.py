"""The small checkpoint, and its reference."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.one_thread import one_thread as one_thread
from tests.staged.checkpoint import write_sharp
from tests.staged.reference import Model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, 8 layers, 256 image tokens."""
    return write_sharp(tmp_path_factory.mktemp("checkpoint") / "sharp")


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> Model:
    """The reference on it."""
    return Model(checkpoint)
