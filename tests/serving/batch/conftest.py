"""A folder of photos and requests, and the undisturbed run that others are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server
from tests.serving.batch.proxy import Proxy, proxy_of
from tests.serving.batch.rows import question_rows, write_lines, write_photos
from tests.serving.batch.tool import ask, by_id

NUM_ROWS = 24


@dataclass(frozen=True)
class Undisturbed:
    """An input of 24 rows about 6 photos, and the lines that a run without any trouble gives."""

    source: Path
    answers: dict[str, dict[str, Any]]


@pytest.fixture(scope="session")
def undisturbed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Answered by the session's server."""
    folder = tmp_path_factory.mktemp("batch")
    rows = question_rows(write_photos(folder / "photos", 6), NUM_ROWS)
    source = write_lines(folder / "photos" / "in.jsonl", rows)
    done = ask(server, source, folder / "out.jsonl")
    assert done.code == 0, done.messages
    return Undisturbed(source, by_id(folder / "out.jsonl"))


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    """In front of the session's server."""
    with proxy_of(server.url) as running:
        yield running
