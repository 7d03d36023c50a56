"""Ray Serve's front and replicas, with engines that are made up: which model answers."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.server import wait_until
from vllm_csp.server_settings import ServerSettings
from vllm_csp.serving.server import free_port

ray = pytest.importorskip("ray")

SECONDS = 120
FLAGS = "--flag --api-key secret --max-body-mb 1 --body-seconds 3"


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
                models={"one": str(folder), "two": str(folder)}, flags=FLAGS
            )
            serve.run(ray_serve.application(options, MadeUpEngine))
            url, key = f"http://127.0.0.1:{port}", {"Authorization": "Bearer secret"}
            with httpx.Client(base_url=url, headers=key, timeout=SECONDS) as client:
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
        "flags": FLAGS,
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


def test_without_the_key_no_body_is_read(client: httpx.Client) -> None:
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/segment")):
        for key in ("Bearer other", "secret", ""):
            refused = client.request(
                method, path, content=bytes(100), headers={"Authorization": key}
            )
            assert refused.status_code == 401
    # It is not waited for the rest of it, either.
    head = b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf"
    assert spoken(client, head).startswith(b"HTTP/1.1 401")


def test_bodies_are_bounded_before_they_are_passed_on(client: httpx.Client, folder: Path) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(1 << 16)

    for content in (bytes((1 << 20) + 1), pieces(), b"[" + b"0," * (1 << 17)):
        refused = client.post("/v1/segment", content=content)
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, 413)
    head = b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\n"
    assert spoken(client, head + b"Content-Length: 1000\r\n\r\nhalf").startswith(b"HTTP/1.1 408")
    assert client.post("/v1/segment", content=b"a" * (1 << 20)).status_code == 200


def spoken(client: httpx.Client, sent: bytes) -> bytes:
    """The beginning of an answer to what no client library would send."""
    address = (client.base_url.host, client.base_url.port)
    with socket.create_connection(address, timeout=SECONDS) as connection:
        connection.sendall(sent)
        return connection.recv(1 << 16)


def test_the_limits_are_those_of_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm_csp.serving.front_door import keys_and_settings

    section = '{"csp": {"server": {"max_body_mb": 5, "body_seconds": 7}}}'
    flags = ["--tensor-parallel-size", "2", "--additional-config", section]
    keys, settings = keys_and_settings([*flags, "--api-key", "a", "b", "--max-held-requests=9"])
    assert keys == ["a", "b"]
    assert (settings.max_body_mb, settings.body_seconds, settings.max_held_requests) == (5, 7, 9)
    monkeypatch.setenv("VLLM_API_KEY", "c")
    assert keys_and_settings([])[0] == ["c"]
    monkeypatch.delenv("VLLM_API_KEY")
    assert keys_and_settings([]) == ([], ServerSettings())
    with pytest.raises(ValueError, match="max_body_mb"):
        keys_and_settings(["--max-body-mb", "0"])
