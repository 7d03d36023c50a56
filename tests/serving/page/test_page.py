"""The page in a real Chromium, on a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from tests.oracle import recording
from tests.pictures import encoded, gradient
from tests.server import Server, wait_until
from tests.serving.page.browser import SECONDS, Page
from tests.serving.test_disconnect import idle
from vllm_csp.client import Client

COST = (
    "Policy csp: 4.5 image tokens per layer on average, 40 % of the computation of a dense prefill."
)


def masks_of(server: Server, file: Path, *questions: str, **options: Any) -> npt.NDArray[np.bool_]:
    with Client(server.url, api_key=server.key) as client:
        return client.segment(file, list(questions), **options).to_numpy()


def drawn(page: Page, before: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    return (page.canvas() != before).any(axis=2)


def test_an_answer_streams_in_and_its_mask_is_drawn(page: Page, server: Server) -> None:
    one = recording("d02-answer")
    page.choose(one.image_file)
    before = page.canvas()
    assert np.array_equal(before, np.asarray(Image.open(one.image_file).convert("RGB")))
    page.run(
        """window.texts = [];
        new MutationObserver(() => {
          const text = document.querySelector(".answer .text");
          if (text) window.texts.push(text.textContent);
        }).observe(document.getElementById("answers"), {childList: true, subtree: true});"""
    )
    page.ask(one.question_text)
    [text] = page.all(".answer .text")
    assert " ".join(text.text.split()) == one.text("fp32")
    texts = list(dict.fromkeys(filter(None, page.run("return window.texts"))))
    # How many pieces arrive apart depends on how busy the machine is.
    assert len(texts) > 1 and all(map(texts[-1].startswith, texts))
    expected = masks_of(server, one.image_file, one.question_text, mode="generate")[0]
    changed = drawn(page, before)
    assert not (changed & ~expected).any()
    assert changed[expected].mean() > 0.99
    assert "first text after" in page.all(".answer .time")[0].text
    assert f"{expected.sum():,} pixels" in page.all(".answer .mask")[0].text


def test_masks_are_switched_off_and_on(page: Page) -> None:
    one = recording("d04-answer")
    page.choose(one.image_file)
    before = page.canvas()
    page.ask(one.question_text)
    first, second = page.all(".mask input")
    both = drawn(page, before)
    first.click()
    only_second = drawn(page, before)
    second.click()
    assert not drawn(page, before).any()
    first.click()
    only_first = drawn(page, before)
    assert only_first.any() and only_second.any()
    assert np.array_equal(only_first | only_second, both)


def test_several_questions_are_one_call(page: Page, server: Server, photo: Path) -> None:
    questions = ["Where is the light?", "Where is it dark?", "word " * 1100]
    page.choose(photo)
    before = page.canvas()
    page.run("performance.clearResourceTimings()")
    page.ask(*questions, mode="force")
    calls = page.run("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert calls == [f"{server.url}/v1/segment"]
    answers = page.all(".answer")
    assert [one.text.split("\n")[0] for one in answers[:2]] == questions[:2]
    assert "3 questions in one call" in answers[0].text
    assert "maximum context length" in answers[2].text
    expected = masks_of(server, photo, *questions[:2]).any(axis=0)
    changed = drawn(page, before)
    assert not (changed & ~expected).any() and changed[expected].mean() > 0.95


def test_an_image_is_dropped(page: Page) -> None:
    page.run(
        """const canvas = new OffscreenCanvas(30, 20);
        canvas.getContext("2d").fillRect(0, 0, 30, 20);
        canvas.convertToBlob().then((blob) => {
          const data = new DataTransfer();
          data.items.add(new File([blob], "dropped.png", {type: "image/png"}));
          const drop = document.getElementById("drop");
          drop.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true}));
        });"""
    )
    page.until(
        lambda: page.text("about") == "dropped.png, 30 \u00d7 20 pixels", "the image is shown"
    )
    page.ask("What is this?", mode="force")
    assert len(page.all(".answer .mask")) == 1


@pytest.mark.parametrize("kind", ["turned JPEG", "TIFF"])
def test_masks_lie_upright_on_what_the_browser_shows(
    page: Page, server: Server, tmp_path: Path, kind: str
) -> None:
    """A TIFF is not shown; its masks are, on grey."""
    picture = gradient(120, 80)
    exif = picture.getexif()
    exif[0x0112] = 6
    file = tmp_path / "picture"
    file.write_bytes(
        encoded(picture, "TIFF") if kind == "TIFF" else encoded(picture, "JPEG", exif=exif)
    )
    page.choose(file)
    page.ask("What is this?", mode="force")
    height, width = (80, 120) if kind == "TIFF" else (120, 80)
    assert page.canvas().shape == (height, width, 3)
    if kind == "TIFF":
        assert "cannot show" in page.text("about")
        [expected] = masks_of(server, file, "What is this?")
        assert np.array_equal(drawn(page, np.uint8([138, 146, 156])), expected)


def test_tokens_of_each_stage_are_drawn(page: Page, photo: Path) -> None:
    page.choose(photo)
    page.ask("What is this?", mode="force")
    [caption] = page.all("#panels figcaption")
    assert caption.text == "layers 0-7: 256 of 256"
    assert "256 image tokens per layer on average, 100 %" in page.text("cost")
    assert brightness(page).min() > 0


def test_left_out_tokens_are_darkened(page: Page) -> None:
    """With figures as a server with three stages gives them."""
    figures = {
        "visual_tokens": 16,
        "stage_layers": [[0, 2], [2, 4], [4, 8]],
        "kept_tokens": [[0, 5], list(range(16)), []],
        "mean_visual_tokens_per_layer": 4.5,
        "flops_ratio": 0.4,
        "policy": "csp",
    }
    captions = page.run(
        """return (async () => {
          const {panels, cost} = await import("./ui/tokens.js");
          const canvas = new OffscreenCanvas(40, 40);
          const pen = canvas.getContext("2d");
          pen.fillStyle = "white";
          pen.fillRect(0, 0, 40, 40);
          const made = panels(arguments[0], canvas.transferToImageBitmap());
          document.getElementById("panels").replaceChildren(...made);
          return [...made.map((one) => one.textContent), cost(arguments[0])];
        })()""",
        figures,
    )
    assert captions == [
        "layers 0-1: 2 of 16",
        "layers 2-3: 16 of 16",
        "layers 4-7: 0 of 16",
        COST,
    ]
    bright = brightness(page) > 128
    assert bright.tolist() == [[i in kept for i in range(16)] for kept in figures["kept_tokens"]]


def brightness(page: Page) -> npt.NDArray[np.float64]:
    """Of the middle of each of 4 x 4 cells of each panel."""
    script = """const canvases = [...document.querySelectorAll("#panels canvas")];
    return JSON.stringify(canvases.map((one) => {
      const pen = one.getContext("2d");
      return Array.from({length: 16}, (_, i) =>
        pen.getImageData((i % 4) * 56 + 28, Math.floor(i / 4) * 56 + 28, 1, 1).data[1]);
    }))"""
    return np.array(json.loads(page.run(script)), float)


def test_nothing_is_asked_of_other_servers(page: Page, server: Server, photo: Path) -> None:
    page.choose(photo)
    page.ask("What is this?")
    names = page.run("return performance.getEntries().map((one) => one.name)")
    addresses = [name for name in names if "://" in name and not name.startswith("blob:")]
    assert len(addresses) > 8
    assert all(name.startswith(f"{server.url}/v1/") for name in addresses)


def test_what_people_and_models_write_stays_text(page: Page, photo: Path) -> None:
    page.choose(photo)
    hostile = "<img src=x onerror=document.title='taken'> & <b>bold</b>"
    page.ask(hostile)
    assert page.all(".answer .question")[0].text == hostile
    assert page.all(".answer img, .answer b") == []
    page.ask(hostile, hostile, mode="force")
    assert page.driver.title == "vllm-csp: ask an image"


def test_errors_can_be_read_and_mended(page: Page, server: Server, photo: Path) -> None:
    page.type_key("wrong")
    page.until(lambda: page.text("model") == "API key needed", "the key is refused")
    page.choose(photo)
    page.ask("What is this?")
    assert page.all(".answer .error")[0].text.startswith("The server wants an API key")
    page.type_key(server.key)
    page.until(lambda: page.text("model") == "lisa", "the key is taken")
    page.ask("word " * 1100)
    assert "maximum context length is 1024 tokens" in page.all(".answer .error")[0].text
    page.driver.set_network_conditions(offline=True, latency=0, throughput=0)
    try:
        page.ask("What is this?")
        assert "The server cannot be reached" in page.all(".answer .error")[0].text
    finally:
        page.driver.delete_network_conditions()
    page.complaints()
    page.ask("What is this?")
    assert len(page.all(".answer:first-child .mask, .answer:first-child .time")) > 0


def test_a_call_can_be_stopped(page: Page, server: Server, photo: Path) -> None:
    page.choose(photo)
    field = page.find("questions")
    page.run("arguments[0].value = arguments[1]", field, "\n".join(f"What {i}?" for i in range(64)))
    page.find("send").click()
    page.find("stop").click()
    page.until(page.finished, "it has stopped")
    assert page.all(".answer .error")[0].text == "stopped"
    wait_until(lambda: idle(server), SECONDS, "nothing runs and nothing is held")


def test_what_is_no_image_is_not_taken(page: Page, tmp_path: Path) -> None:
    file = tmp_path / "note.txt"
    file.write_text("hello")
    page.find("file").send_keys(str(file))
    page.until(lambda: "is no image" in page.text("trouble"), "it is refused")
    assert not page.find("send").is_enabled()
