"""With room for one image only, it is let go of when it is rendered, before it is answered."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.pictures import encoded, gradient
from tests.serving.guard.real import Real, running
from vllm_csp.media.memory import PATIENCE_SECONDS

pytestmark = pytest.mark.slow

LIMIT = 30
"""MiB: one image of `SIDES` at a time can be decoded, but not beside one that is held."""
SIDES = (1200, 1199, 1198, 1197)


@pytest.fixture(scope="module")
def narrow(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    """A server with little room for images."""
    settings = {"csp": {"server": {"max_held_image_mb": LIMIT, "stuck_seconds": 300}}}
    out = tmp_path_factory.mktemp("narrow") / "out.log"
    with running(standin, out, "--additional-config", json.dumps(settings)) as server:
        yield server


def picture(side: int) -> bytes:
    return encoded(gradient(1200, side))


def test_images_of_answers_in_the_making_take_no_room(narrow: Real) -> None:
    """The engine stands still for longer than an image would wait for room."""

    def ask(side: int, questions: int) -> int:
        return narrow.segment(*["What is this?"] * questions, picture=picture(side)).status_code

    with ThreadPoolExecutor(len(SIDES)) as pool:
        with narrow.stopped("EngineCore"):
            asked = [pool.submit(ask, side, 1 + number) for number, side in enumerate(SIDES)]
            time.sleep(PATIENCE_SECONDS + 10)
            assert not any(one.done() for one in asked)
        assert [one.result() for one in asked] == [200] * len(SIDES)
    assert narrow.metric("vllm_csp:requests_refused_total", reason="images_full") == 0


def test_an_image_that_never_has_room_is_refused(narrow: Real) -> None:
    refused = narrow.segment("What is this?", picture=encoded(gradient(1300, 1300)))
    assert refused.status_code == 400
    assert "at most 30 MiB of images" in refused.json()["error"]["message"]
