"""The Python client against a real server."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from benchmarks.overlap import iou
from tests.oracle import Recording, recording
from tests.pictures import data_url, encoded, gradient
from tests.server import Server
from vllm_csp.client import AsyncClient, Client, ImageLike, SegmentResult, ServerError

ON_COFFEE = ["d02-forced0", "dg1-forced1", "dg1-forced2"]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.url, api_key=server.key) as one:
        yield one


def asked() -> tuple[Path, list[Recording]]:
    recordings = [recording(name) for name in ON_COFFEE]
    return recordings[0].image_file, recordings


def agrees(result: SegmentResult, one: Recording) -> bool:
    [mask] = result.masks
    return iou(mask.model_dump(), one.masks("fp32")[0]) >= 0.999


def kinds() -> dict[str, ImageLike]:
    file, _ = asked()
    return {
        "path": file,
        "path as text": str(file),
        "bytes": file.read_bytes(),
        "Pillow": Image.open(file),
        "array": np.asarray(Image.open(file).convert("RGB")),
        "address": data_url(file.read_bytes()),
    }


@pytest.mark.parametrize("kind", ["path", "path as text", "bytes", "Pillow", "array", "address"])
def test_an_image_of_any_kind_is_segmented(client: Client, kind: str) -> None:
    _, recordings = asked()
    answer = client.segment(kinds()[kind], [one.question_text for one in recordings])
    for result, one in zip(answer.results, recordings, strict=True):
        assert agrees(result, one)
    assert answer.to_numpy().shape == (3, 400, 600)


def test_the_other_modes_of_pillow_are_sent_too(client: Client) -> None:
    for mode in ("1", "L", "P", "RGBA", "CMYK", "YCbCr"):
        answer = client.segment(gradient(40, 30).convert(mode), "What is this?")
        assert answer.to_numpy().shape == (1, 30, 40)


def test_masks_fit_the_pixels_that_the_caller_holds(client: Client, tmp_path: Path) -> None:
    """A file is turned upright; a Pillow image is taken as it lies, orientation or not."""
    picture = gradient(120, 80)
    exif = picture.getexif()
    exif[0x0112] = 6
    file = tmp_path / "turned.jpg"
    file.write_bytes(encoded(picture, "JPEG", exif=exif))
    assert client.segment(file, "What?").to_numpy().shape == (1, 120, 80)
    assert client.segment(Image.open(file), "What?").to_numpy().shape == (1, 80, 120)
    for image in (file, Image.open(file)):
        answer = client.segment(image, "What?")
        assert answer.overlay(image).size[0] >= answer.image.width


def test_options_reach_the_server(client: Client) -> None:
    file, recordings = asked()
    answer = client.segment(
        file,
        recordings[0].question_text,
        mask_format="png",
        stats=True,
        conv_template="llava_llama_2",
        temperature=0,
        model="lisa",
    )
    [result] = answer.results
    assert result.masks[0].counts is None
    assert result.segmentation is not None and result.segmentation["policy"] == "dense"
    generated = client.segment(file, "What is the cup?", mode="generate", max_tokens=1)
    assert generated.results[0].finish_reason == "length"
    with pytest.raises(ServerError, match="how tokens are chosen"):
        client.segment(file, "What?", policy={"policy": "csp"})


def test_chat_answers_in_the_models_words(client: Client) -> None:
    one = recording("d09-answer")
    [turn] = one.case["history"]
    result = client.chat(one.image_file, one.question_text, history=[tuple(turn)])
    assert " ".join((result.answer or "").split()) == one.text("fp32")
    assert agrees(result, one)


def test_many_calls_at_once(server: Server) -> None:
    file, recordings = asked()

    async def ask() -> list[SegmentResult]:
        async with AsyncClient(f"{server.url}/v1/", api_key=server.key) as client:
            questions = [one.question_text for one in recordings]
            one, other, chat = await asyncio.gather(
                client.segment(file, questions),
                client.segment(file.read_bytes(), questions),
                client.chat(file, questions[0], mode="force"),
            )
            return [*one.results, *other.results, chat]

    results = asyncio.run(ask())
    for result, one in zip(results, [*recordings, *recordings, recordings[0]], strict=True):
        assert agrees(result, one)


def test_refusals_are_the_servers_words(server: Server, client: Client) -> None:
    with pytest.raises(ServerError, match="at most 64") as refusal:
        client.segment(gradient(9, 9), ["What?"] * 65)
    assert refusal.value.status == 400
    with Client(server.url, api_key="wrong") as other:
        with pytest.raises(ServerError, match="401: Unauthorized"):
            other.segment(gradient(9, 9), "What?")
        with pytest.raises(ServerError, match="401: Unauthorized"):
            other.chat(gradient(9, 9), "What?")
    with Client("http://127.0.0.1:1") as other, pytest.raises(httpx.ConnectError):
        other.segment(gradient(9, 9), "What?")


def test_a_failed_question_is_told_beside_the_others(client: Client) -> None:
    answer = client.segment(gradient(50, 40), ["What?", "word " * 1100])
    good, bad = answer.results
    assert good.error is None and len(good.masks) == 1
    assert bad.error is not None and bad.error.code == 400
    assert answer.to_numpy().shape == (1, 40, 50)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((4, 4, 3), np.float32), ValueError),
        (np.zeros((4, 4, 2), np.uint8), ValueError),
        (["a"], TypeError),
        ("/no/such/file.png", FileNotFoundError),
    ],
    ids=["floats", "two channels", "a list", "no file"],
)
def test_what_is_no_image_is_not_sent(
    client: Client, image: ImageLike, error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.segment(image, "What?")


def test_the_key_may_stand_in_the_environment(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", server.key)
    with Client(server.url) as client:
        assert len(client.segment(gradient(9, 9), "What?").results) == 1


def test_it_needs_neither_vllm_nor_torch() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'vllm', 'transformers']));"
        "from vllm_csp.client import AsyncClient, Client; Client().close()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
