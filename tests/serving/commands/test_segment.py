"""`vllm-csp segment` as its users run it, against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.pictures import encoded, gradient
from tests.server import Server
from tests.serving.batch.proxy import Fault, proxy_of

QUESTION = "Please segment the helmet in this image."


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    file.write_bytes(encoded(gradient(64, 48)))
    return file


def segment(url: str, key: str, photo: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return run("segment", photo, QUESTION, "--base-url", url, *options, VLLM_API_KEY=key)


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("vllm-csp"))
    return subprocess.run(
        [program, *(str(one) for one in words)],
        env={**os.environ, "COLUMNS": "400", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_it_prints_the_answer_and_draws_it(server: Server, photo: Path) -> None:
    pictures = [photo.with_name(name) for name in ("masks.jpg", "tokens.PNG")]
    options = ("-o", pictures[0], "--show-tokens", pictures[1], "--mode", "force")
    done = segment(server.url, server.key, photo, *options)
    assert (done.returncode, done.stderr) == (0, "")
    assert "[SEG]" in done.stdout and "mask 0: box" in done.stdout
    for picture in pictures:
        Image.open(picture).load()


def test_an_answer_is_printed_before_a_picture_fails(server: Server, photo: Path) -> None:
    """Of a disk that is full the first to tell is the attempt to write."""
    full = photo.with_name("full.png")
    full.symlink_to("/dev/full")
    done = segment(server.url, server.key, photo, "-o", full, "--mode", "force")
    assert done.returncode == 1
    assert "mask 0: box" in done.stdout
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--output", "--show-tokens"])
@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("missing/x.png", "is no folder: make it first"),
        ("x", "name it .png or .jpg"),
        ("x.txt", "name it .png or .jpg"),
        (".", "is a directory"),
    ],
)
def test_where_no_picture_can_be_is_told_before_anything_is_asked(
    photo: Path, option: str, path: str, reason: str
) -> None:
    """Here nobody is there to be asked."""
    target = f"{photo.parent}/{path}"
    done = segment("http://127.0.0.1:1", "", photo, option, target)
    assert done.returncode == 2
    assert option in done.stderr and reason in done.stderr


def test_model_and_longest_answer_are_sent(server: Server, photo: Path) -> None:
    wrong = segment(server.url, server.key, photo, "--model", "another")
    assert wrong.returncode == 1
    assert "`another` does not exist" in wrong.stderr
    options = ("--model", "lisa", "--max-tokens", 2, "--json")
    done = segment(server.url, server.key, photo, *options)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["usage"]["completion_tokens"] == 2


def test_an_answer_that_takes_too_long_is_given_up(server: Server, photo: Path) -> None:
    with proxy_of(server.url) as proxy:
        proxy.faults = {"helmet": [Fault(hang=True)]}
        done = segment(proxy.url, server.key, photo, "--timeout", 2)
    assert done.returncode == 1
    assert "Error: timed out" in done.stderr


@pytest.mark.parametrize("url", ["http://[", "localhost:1", "http://127.0.0.1:1"])
def test_a_server_that_cannot_be_asked_is_told_without_a_traceback(photo: Path, url: str) -> None:
    done = segment(url, "", photo)
    assert done.returncode == 1
    assert "Error: " in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["segment", "demo"])
def test_a_server_that_takes_too_long_to_start_is_told(photo: Path, command: str) -> None:
    asked = {"segment": [photo, QUESTION], "demo": ["--output", photo.with_name("demo.png")]}
    done = run(command, *asked[command], "--start-seconds", 1)
    assert done.returncode == 1
    assert "not ready after 1 s and was ended" in done.stderr
    assert "(--start-seconds); a download goes on where it was" in done.stderr
