"""Behind Ray Serve answers are those of a plain server, of the model that was asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.overlap import iou
from tests.oracle import recording
from tests.pictures import data_url
from tests.server import Server, wait_until
from tests.serving.batch.test_own_server import FLAGS
from vllm_csp.mini import MINI
from vllm_csp.serving.server import free_port

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

ON_COFFEE = ["d02-forced0", "dg1-forced0", "dg1-forced1", "dg1-forced2"]
START_SECONDS = 1500


@pytest.fixture(scope="module")
def url(oracle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`python -m vllm_csp.serving.ray_serve` with two models, one engine at a time."""
    folder = tmp_path_factory.mktemp("serve")
    port = free_port()
    command = [sys.executable, "-m", "vllm_csp.serving.ray_serve", "--port", str(port)]
    command += [f"lisa={oracle / 'checkpoint'}", f"other={MINI}", "--flags", FLAGS]
    # Ray would kill replicas when other programs fill the memory.
    environment = {**os.environ, "RAY_ADDRESS": "local", "RAY_memory_monitor_refresh_ms": "0"}
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers(address, process), START_SECONDS, f"Serve: {folder}/serve.log")
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()


def answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "Serve has ended"
    try:
        return httpx.get(f"{address}/v1/models").status_code == 200
    except httpx.TransportError:
        return False


def segment(url: str, headers: dict[str, str] | None = None, **body: Any) -> httpx.Response:
    # The first request for a model waits for its engine.
    return httpx.post(f"{url}/v1/segment", json=body, headers=headers, timeout=START_SECONDS)


def test_masks_are_those_of_a_plain_server(url: str, server: Server) -> None:
    asked = [recording(name) for name in ON_COFFEE]
    body = {
        "image": data_url(asked[0].image_file.read_bytes()),
        "questions": [one.question_text for one in asked],
    }
    reply = segment(url, **body)
    assert reply.status_code == 200, reply.text
    with server.client() as client:
        plain = client.post("/v1/segment", json=body).json()
    for mine, theirs, one in zip(reply.json()["results"], plain["results"], asked, strict=True):
        assert iou(mine["masks"][0], theirs["masks"][0]) >= 0.999
        assert iou(mine["masks"][0], one.masks("fp32")[0]) >= 0.999


def test_chats_stream(url: str) -> None:
    one = recording("dg1-forced0")
    image = {"type": "image_url", "image_url": {"url": data_url(one.image_file.read_bytes())}}
    content = [image, {"type": "text", "text": one.question_text}]
    body = {
        "messages": [{"role": "user", "content": content}],
        "segmentation": {"mode": "force"},
        "stream": True,
    }
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=600) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        events = [line for line in reply.iter_lines() if line]
    assert events[-1] == "data: [DONE]"
    assert any('"masks": [{' in event for event in events)


def test_errors_are_the_servers(url: str) -> None:
    refused = segment(url, questions=["?"])
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "image")
    unknown = segment(url, image="", questions=["?"], model="absent")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "model")


def test_another_model_takes_the_place_of_the_first(url: str) -> None:
    listed = httpx.get(f"{url}/v1/models").json()["data"]
    assert [one["id"] for one in listed] == ["lisa", "other"]
    image = data_url(recording("dg1-forced0").image_file.read_bytes())
    reply = segment(url, image=image, questions=["What is this?"], model="other")
    assert (reply.status_code, reply.json()["model"]) == (200, "other"), reply.text
    # By header, as forms do it: and the first model is started again.
    back = segment(
        url, {"serve_multiplexed_model_id": "lisa"}, image=image, questions=["What is this?"]
    )
    assert (back.status_code, back.json()["model"]) == (200, "lisa"), back.text
