"""A good request that has to give the same answer whatever came before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from benchmarks.overlap import iou
from tests.chat import question_body
from tests.oracle import recording
from tests.pictures import data_url
from tests.robustness.gauges import MORE_FILES, MOST_EMBEDDINGS, Holdings, wait_until_idle
from tests.server import Server


@dataclass(frozen=True)
class Golden:
    """The server's masks of an oracle question, by both endpoints, before anything bad came."""

    server: Server
    masks: list[dict[str, Any]]
    before: Holdings

    def check(self) -> None:
        """The same masks, nothing held, no more files open.

        To IoU 0.999: kernels round differently for a prompt of which a part is cached.
        """
        left = wait_until_idle(self.server)
        assert left.gauges["vllm_csp:held_embeddings"] <= MOST_EMBEDDINGS
        assert left.files <= self.before.files + MORE_FILES
        for mask, expected in zip(golden_masks(self.server), self.masks, strict=True):
            assert iou(mask, expected) >= 0.999


def golden_masks(server: Server) -> list[dict[str, Any]]:
    """One mask by `/v1/chat/completions`, one by `/v1/segment`, the same question."""
    one = recording("d01-forced0")
    reply = server.chat(question_body(one))
    assert reply.status_code == 200, reply.text
    masks: list[dict[str, Any]] = reply.json()["choices"][0]["message"]["masks"]
    call = {
        "image": data_url(one.image_file.read_bytes()),
        "questions": [one.question_text],
        "conv_template": one.case["conv_template"],
    }
    with server.client() as client:
        reply = client.post("/v1/segment", json=call)
    assert reply.status_code == 200, reply.text
    masks += reply.json()["results"][0]["masks"]
    assert len(masks) == 2
    for mask in masks:
        assert iou(mask, one.masks("fp32")[0]) >= 0.999
    return masks


@pytest.fixture(scope="session")
def golden(server: Server) -> Golden:
    """Asked once before the first bad input."""
    masks = golden_masks(server)
    return Golden(server, masks, wait_until_idle(server))


@pytest.fixture(scope="module")
def unharmed(golden: Golden) -> Iterator[Golden]:
    """Checked after the tests of a module."""
    yield golden
    golden.check()
