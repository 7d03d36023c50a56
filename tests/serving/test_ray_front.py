"""Ray Serve's front and replicas, with engines that are made up: which model answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import wait_until
from vllm_csp.serving.server import free_port

ray = pytest.importorskip("ray")

SECONDS = 120


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    """Of a service with two models, one engine at a time."""
    with pytest.MonkeyPatch.context() as patch:
        # Ray would kill replicas when other programs fill the memory.
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")
        from ray import serve

        from tests.serving.made_up_engine import MadeUpEngine
        from vllm_csp.serving import ray_serve
        from vllm_csp.serving.batch.on_ray.cluster import LOCAL, join

        port = free_port()
        join(LOCAL, 2)
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": port})
            options = ray_serve.Options(
                models={"one": str(folder), "two": str(folder)}, flags="--flag"
            )
            serve.run(ray_serve.application(options, MadeUpEngine))
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:
                yield client
            serve.shutdown()
        finally:
            ray.shutdown()


def log(folder: Path) -> list[str]:
    return (folder / "log").read_text().splitlines()


def test_models_take_turns(client: httpx.Client, folder: Path) -> None:
    """By the body, by a header, or the first."""
    assert log(folder) == ["one starts"]
    told = client.post("/v1/segment?a=b", json={"image": "i"})
    assert told.json() == {
        "model": "one",
        "path": "/v1/segment?a=b",
        "flags": "--flag",
        "body": '{"image":"i"}',
    }
    assert (told.headers["content-type"], told.headers["x-own"]) == ("application/json", "kept")
    assert client.post("/v1/segment", json={"model": "two"}).json()["model"] == "two"
    assert log(folder) == ["one starts", "one ends", "two starts"]
    form = {"files": {"image": b"..."}, "headers": {"serve_multiplexed_model_id": "two"}}
    assert client.post("/v1/segment", **form).json()["model"] == "two"
    for unread in (b"{no JSON", b'{"a":' * 100_000):
        assert client.post("/v1/segment", content=unread).json()["model"] == "one"
    wait_until(lambda: log(folder)[3:] == ["two ends", "one starts"], SECONDS, "one is back")


def test_models_are_listed_and_others_refused(client: httpx.Client) -> None:
    assert [one["id"] for one in client.get("/v1/models").json()["data"]] == ["one", "two"]
    refused = client.post("/v1/segment", json={"model": "three"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (404, "model")
