"""Configurations of models that are never loaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.kv.harness import config_folder
from tests.one_thread import one_thread as one_thread
from tests.staged.checkpoint import write_sharp


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, 8 layers, 256 image tokens."""
    return write_sharp(tmp_path_factory.mktemp("standin") / "sharp")


@pytest.fixture(scope="session")
def folder(standin: Path) -> Callable[[int], Path]:
    """A configuration with that many layers."""
    return lambda layers: config_folder(standin, standin.parent / str(layers), layers)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the plugin tells; vLLM keeps its loggers' lines from pytest's handler."""
    logger = logging.getLogger("vllm.plugins")
    logger.addHandler(caplog.handler)
    with caplog.at_level("INFO", logger=logger.name):
        yield caplog
    logger.removeHandler(caplog.handler)
