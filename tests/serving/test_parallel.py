"""Several engines, several API servers: masks come from the engine that has their queries."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from benchmarks.metrics import samples, summed
from benchmarks.overlap import iou
from tests.chat import question_body
from tests.conftest import KV_CACHE_BYTES
from tests.oracle import Recording, recording
from tests.pictures import data_url
from tests.server import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

FORCED = ["d02-forced0", "dg1-forced0", "dg1-forced1", "dg1-forced2", "d08-forced0"]
GENERATED = ["d03-answer", "d10-answer"]
ASKED = [*FORCED, *GENERATED] * 4
FLAGS = (
    *("--dtype", "float32", "--enforce-eager", "--max-model-len", "1024", "--max-num-seqs", "8"),
    *("--kv-cache-memory-bytes", str(KV_CACHE_BYTES), "--enable-log-requests"),
)
SETUPS = {
    "two engines": (2, 2, ["--data-parallel-size", "2"]),
    "two engines, one API server": (
        *(2, 1),
        ["--data-parallel-size", "2", "--api-server-count", "1"],
    ),
    "two API servers": (1, 2, ["--api-server-count", "2"]),
}


@pytest.fixture(scope="module", params=SETUPS)
def setup(
    request: pytest.FixtureRequest, oracle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Server, int, int]]:
    """A server, its engines and API servers."""
    num_engines, num_api_servers, flags = SETUPS[request.param]
    log = tmp_path_factory.mktemp("parallel") / "vllm.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.server.START_SECONDS", 1200)
        with serving(oracle / "checkpoint", log, *FLAGS, *flags, key="a-key-of-the-tests") as one:
            yield one, num_engines, num_api_servers


def test_masks_are_lisas_whoever_answers(setup: tuple[Server, int, int]) -> None:
    server, num_engines, num_api_servers = setup
    with ThreadPoolExecutor(8) as threads:
        asked = [recording(name) for name in ASKED]
        # Each with a connection of its own, which the kernel gives to one of the API servers.
        replies = list(threads.map(lambda one: server.chat(question_body(one)), asked))
    for reply, one in zip(replies, asked, strict=True):
        assert reply.status_code == 200, reply.text
        assert_lisas(reply.json()["choices"][0]["message"]["masks"], one)
    assert len(by_engine(server)) == num_engines
    assert len(by_api_server(server)) == num_api_servers


def test_one_call_may_be_answered_by_several_engines(setup: tuple[Server, int, int]) -> None:
    server, _, _ = setup
    asked = [recording(name) for name in FORCED[:4]]
    questions = [one.question_text for one in asked] * 4
    image = data_url(asked[0].image_file.read_bytes())
    with server.client() as client:
        reply = client.post("/v1/segment", json={"image": image, "questions": questions})
    assert reply.status_code == 200, reply.text
    for result, one in zip(reply.json()["results"], asked * 4, strict=True):
        assert_lisas(result["masks"], one)


def test_every_mask_is_counted_once(setup: tuple[Server, int, int]) -> None:
    """Each API server has counters of its own, and each engine; `/metrics` adds them up."""
    server, num_engines, _ = setup
    masks = "vllm_csp:masks_total"
    queries, hits = "vllm_csp:sam_cache_queries_total", "vllm_csp:sam_cache_hits_total"

    def metrics() -> dict[str, float]:
        return summed(server.metrics(), (masks, queries, hits))

    one = recording("dg1-forced0")
    before = metrics()
    for _ in range(6):
        assert server.chat(question_body(one)).status_code == 200
    after = metrics()
    assert after[masks] - before[masks] == 6
    misses = [found[queries] - found[hits] for found in (before, after)]
    # Five pictures, encoded at most once by each engine.
    assert misses[0] <= misses[1] <= 5 * num_engines


def assert_lisas(masks: list[dict[str, Any]], one: Recording) -> None:
    [mask] = masks
    assert iou(mask, one.masks("fp32")[0]) >= 0.999


def by_engine(server: Server) -> set[str]:
    """Engines that have finished requests."""
    found = [one for one in samples(server.metrics()) if one.name == "vllm:request_success_total"]
    return {one.labels["engine"] for one in found if one.value > 0}


def by_api_server(server: Server) -> set[str]:
    """API servers that have been asked."""
    pattern = r"\((\w*Server\w*) pid=\d+\).*Received request"
    return set(re.findall(pattern, server.log.read_text()))
