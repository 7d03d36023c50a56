"""The small checkpoint, and its reference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.staged.checkpoint import write_sharp
from tests.staged.reference import Model


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """The tensors here are far too small for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, 8 layers, 256 image tokens."""
    return write_sharp(tmp_path_factory.mktemp("checkpoint") / "sharp")


@pytest.fixture(scope="session")
def model(checkpoint: Path) -> Model:
    """The reference on it."""
    return Model(checkpoint)
