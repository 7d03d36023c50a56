"""One browser for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pictures import encoded, gradient
from tests.server import Server
from tests.serving.page.browser import Page, browser


@pytest.fixture(scope="package")
def chromium(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Chromium, started once."""
    with browser(server.url, tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium: Page, server: Server) -> Iterator[Page]:
    """The page, loaded afresh, with its key; at the end the browser must have nothing to object."""
    chromium.load(server.key)
    chromium.complaints()
    yield chromium
    assert chromium.complaints() == []


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small picture in a file."""
    file = tmp_path_factory.mktemp("photo") / "gradient.png"
    file.write_bytes(encoded(gradient(160, 120)))
    return file
