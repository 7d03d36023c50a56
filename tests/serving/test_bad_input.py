"""Bad requests get a 4xx that says what is wrong, and harm nobody else's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from benchmarks.overlap import iou
from tests.chat import body, picture_part, question_body, user
from tests.oracle import recording
from tests.pictures import data_url, encoded, gradient
from tests.server import Server
from vllm_csp.images import MAX_PIXELS

QUESTION = "Please segment the helmet in this image."
PNG = encoded(gradient(64, 48))
FINE = data_url(PNG)


def with_picture(url: str) -> dict[str, Any]:
    return body(user(QUESTION, url), max_tokens=16)


def asked(**fields: Any) -> dict[str, Any]:
    return {**with_picture(FINE), **fields}


@pytest.fixture(autouse=True)
def _the_server_goes_on(server: Server) -> Iterator[None]:
    """After each of these tests an oracle question is answered as ever."""
    yield
    one = recording("d01-forced0")
    reply = server.chat(question_body(one))
    assert reply.status_code == 200, reply.text
    [mask] = reply.json()["choices"][0]["message"]["masks"]
    assert iou(mask, one.masks("fp32")[0]) >= 0.999


def refused(server: Server, request: dict[str, Any], status: int = 400) -> str:
    """The reasons given to the request as it is, and for a stream."""
    replies = [server.chat({**request, "stream": stream}) for stream in (False, True)]
    assert [reply.status_code for reply in replies] == [status] * 2, replies[-1].text
    return " / ".join(reply.json()["error"]["message"] for reply in replies)


PICTURES = {
    "no image file": (data_url(b"not an image"), "cannot identify image"),
    "an empty file": (data_url(b""), "cannot identify image"),
    "only a header": (data_url(PNG[:20]), "Truncated"),
    "half a PNG": (data_url(PNG[: len(PNG) // 2]), "truncated"),
    "half a JPEG": (
        data_url(encoded(gradient(640, 480), "JPEG")[:3000], "jpeg"),
        "truncated",
    ),
    "SVG": (data_url(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg+xml"), "cannot identify"),
    "not base64": ("data:image/png;base64,%%%%", "base64"),
    "no base64 at all": ("data:image/png;base64", "Invalid data URL"),
    "an empty address": ("", "expected an image"),
    "another protocol": ("ftp://127.0.0.1/a.png", "HTTP, data or file URL"),
    "floating point": (data_url(encoded(gradient(9, 9).convert("F"), "TIFF"), "tiff"), "mode F"),
    "32-bit integers": (
        data_url(encoded(Image.new("I", (9, 9), 1 << 20), "TIFF"), "tiff"),
        "exceed 16 bits",
    ),
}


ADDRESSES = {
    "loopback": ("http://127.0.0.1:9/a.png", "no address on the public internet"),
    "loopback by name": ("http://localhost:9/a.png", "no address on the public internet"),
    "loopback as a number": ("http://2130706433/a.png", "its host is a number"),
    "metadata service": ("http://169.254.169.254/", "no address on the public internet"),
    "user name": ("http://example.com@127.0.0.1/a.png", "user name"),
    "local file": ("file:///etc/passwd", "allowed-local-media-path"),
    "other scheme": ("ftp://example.com/a.png", "HTTP, data or file"),
}


@pytest.mark.parametrize(("url", "reason"), ADDRESSES.values(), ids=ADDRESSES)
def test_addresses_that_are_not_fetched(server: Server, url: str, reason: str) -> None:
    assert reason in refused(server, with_picture(url))


@pytest.mark.parametrize(("url", "reason"), PICTURES.values(), ids=PICTURES)
def test_unreadable_pictures(server: Server, url: str, reason: str) -> None:
    assert reason in refused(server, with_picture(url))


@pytest.mark.parametrize("side", [8193, 20000], ids=["over_our_limit", "decompression_bomb"])
def test_too_many_pixels(server: Server, side: int) -> None:
    """A few kilobytes that would unfold to hundreds of megabytes."""
    assert side * side > MAX_PIXELS
    file = encoded(Image.new("1", (side, side)))
    assert len(file) < 100_000
    assert "too many pixels" in refused(server, with_picture(data_url(file)))


def test_no_picture(server: Server) -> None:
    request = body(user(QUESTION), segmentation={})
    assert "needs an image" in refused(server, request)


TWO = {
    "in one message": [user(QUESTION, FINE, FINE)],
    "in two turns": [
        user(QUESTION, FINE),
        {"role": "assistant", "content": "Sure, [SEG]."},
        user(QUESTION, FINE),
    ],
}


@pytest.mark.parametrize("messages", TWO.values(), ids=TWO)
def test_two_pictures(server: Server, messages: list[dict[str, Any]]) -> None:
    assert "At most 1 image" in refused(server, body(*messages))


OPTIONS = {
    "an unknown field": ({"mod": "force"}, "segmentation.mod"),
    "an unknown mode": ({"mode": "forced"}, "'generate' or 'force'"),
    "no mode": ({"mode": None}, "'generate' or 'force'"),
    "an unknown format": ({"mask_format": "jpeg"}, "'rle' or 'png'"),
    "a wrong type": ({"stats": "maybe"}, "valid boolean"),
    "a string": ("force", "segmentation"),
    "a list": ([], "segmentation"),
    "a number": (5, "segmentation"),
}


@pytest.mark.parametrize(("options", "reason"), OPTIONS.values(), ids=OPTIONS)
def test_wrong_segmentation_options(server: Server, options: Any, reason: str) -> None:
    assert reason in refused(server, asked(segmentation=options))


MESSAGES = {
    "none": ([], "last message must come from the user"),
    "the assistant first": ([{"role": "assistant", "content": "Hi"}, user("Hi")], "alternate"),
    "the user twice": ([user("Hi"), user("Hi")], "alternate"),
    "the assistant last": (
        [user("Hi"), {"role": "assistant", "content": "Hi"}],
        "last message must come from the user",
    ),
    "a late system message": (
        [user("Hi"), {"role": "system", "content": "Hi"}, user("Hi")],
        "role 'system'",
    ),
    "a tool": ([user("Hi"), {"role": "tool", "content": "Hi", "tool_call_id": "1"}], "role 'tool'"),
    "a picture of the assistant's": (
        [user("Hi"), {"role": "assistant", "content": [picture_part(FINE)]}, user("Hi")],
        "user message",
    ),
    "an author for a role, as gpt-oss has": (
        [{"author": {"role": "user"}, "content": []}],
        "message 0 has an author",
    ),
    "a picture in the system message": (
        [{"role": "system", "content": [picture_part(FINE)]}, user("Hi")],
        "user message",
    ),
}


@pytest.mark.parametrize(("messages", "reason"), MESSAGES.values(), ids=MESSAGES)
def test_wrong_messages(server: Server, messages: list[dict[str, Any]], reason: str) -> None:
    assert reason in refused(server, body(*messages))


def test_a_wrong_message_is_not_tokenized_either(server: Server) -> None:
    messages = [{"author": {"role": "user"}, "content": []}]
    with server.client() as client:
        reply = client.post("/tokenize", json={"messages": messages})
    assert reply.status_code == 400, reply.text
    assert "message 0 has an author" in reply.text


FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "beam search": ({"use_beam_search": True, "n": 2}, "beam search gives no masks"),
    "several forced answers": (
        {"n": 2, "temperature": 1.0, "segmentation": {"mode": "force"}},
        "n must be 1",
    ),
    "probabilities of a forced answer": (
        {"logprobs": True, "segmentation": {"mode": "force"}},
        "leave `logprobs` out",
    ),
    "too many answers": ({"n": 100_000, "temperature": 1.0}, "at most 1024 questions at a time"),
    "no answer": ({"n": 0}, "n must be at least 1"),
    "an unknown template option": (
        {"chat_template_kwargs": {"enable_thinking": True}},
        "LISA takes `conv_template`",
    ),
    "an unknown template": (
        {"chat_template_kwargs": {"conv_template": "vicuna"}},
        "choose llava_v1 or llava_llama_2",
    ),
    "more tokens than the model has": ({"max_tokens": 5000}, "cannot be greater than"),
    "probabilities of the prompt": ({"prompt_logprobs": 1}, "prompt_logprobs"),
    "the prompt sent back": ({"echo": True}, "`echo`"),
    "JSON": ({"response_format": {"type": "json_object"}}, "structured outputs"),
    "the image's token": ({"allowed_token_ids": [32004]}, "out-of-vocab"),
    "a key that is ours": ({"vllm_xargs": {"csp_request": "a"}}, "the server's own"),
    "a schedule": ({"vllm_xargs": {"csp_schedule": "a"}}, "the server's own"),
    "no image": ({"vllm_xargs": {"csp_no_image": 1}}, "the server's own"),
    "an image's content": ({"vllm_xargs": {"csp_same_image": "a"}}, "the server's own"),
}


@pytest.mark.parametrize(("fields", "reason"), FIELDS.values(), ids=FIELDS)
def test_options_that_cannot_work(server: Server, fields: dict[str, Any], reason: str) -> None:
    request = asked(**fields)
    if "max_tokens" not in fields:
        request.pop("max_tokens", None)
    assert reason in refused(server, request)


@pytest.mark.parametrize("pictures", [(), (FINE,)], ids=["text", "picture"])
def test_a_prompt_longer_than_the_model(server: Server, pictures: tuple[str, ...]) -> None:
    request = body(user("word " * 1100, *pictures))
    assert "maximum context length is 1024 tokens" in refused(server, request)


def test_a_text_that_cannot_fit_is_refused_before_it_is_tokenised(server: Server) -> None:
    began = time.monotonic()
    reason = refused(server, body(user("word " * 2_000_000)))
    assert "10000" in reason and "the context of 1024 tokens" in reason
    assert time.monotonic() - began < 5


def test_a_wrong_model_name(server: Server) -> None:
    assert "`another` does not exist" in refused(server, asked(model="another"), status=404)


@pytest.mark.parametrize("content", [b'{"model":', b"[1]", b"", b"\xff\xfe"])
def test_a_body_that_is_no_request(server: Server, content: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    with server.client() as client:
        reply = client.post("/v1/chat/completions", content=content, headers=headers)
    assert reply.status_code == 400


@pytest.mark.parametrize("kind", ["video_url", "input_audio", "image_embeds", "something"])
def test_other_media(server: Server, kind: str) -> None:
    part = {"type": kind, kind: {"url": "data:,", "data": "AAAA", "format": "wav"}}
    message = {"role": "user", "content": [part, {"type": "text", "text": QUESTION}]}
    assert refused(server, body(message))


def test_a_picture_of_a_refused_request_is_answered_next_time(server: Server) -> None:
    """vLLM counts a picture as sent to its engine before all is checked."""
    picture = data_url(encoded(gradient(123, 45)))
    refused(server, body(user(QUESTION, picture), prompt_logprobs=1))
    for stream in (False, True):
        request = body(user(QUESTION, picture), segmentation={"mode": "force"}, stream=stream)
        reply = server.chat(request)
        assert reply.status_code == 200, reply.text
        assert '"masks":' in reply.text and '"size":[45,123]' in reply.text.replace(" ", "")


@pytest.mark.parametrize("prompt", ["a <image> b", [1, 32004, 5], [1, 32004]])
def test_the_image_token_without_a_picture_harms_nothing(server: Server, prompt: Any) -> None:
    """On vLLM's own route for plain prompts."""
    request = {"model": "lisa", "prompt": prompt, "max_tokens": 2, "temperature": 0}
    with server.client() as client:
        assert client.post("/v1/completions", json=request).status_code in (200, 400)


@pytest.mark.parametrize("prompt", [[1, 32005], [1, 10**9]])
def test_ids_outside_the_vocabulary_are_refused(server: Server, prompt: list[int]) -> None:
    request = {"model": "lisa", "prompt": prompt, "max_tokens": 2}
    with server.client() as client:
        assert client.post("/v1/completions", json=request).status_code == 400


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"vllm_xargs": {"csp_request": [1]}}, "csp_request"),
        ({"vllm_xargs": {"csp_request": "a", "csp_image": "b"}}, "the server's own"),
        ({"vllm_xargs": {"csp_schedule": "{}"}}, "Schedule"),
        ({"response_format": {"type": "json_object"}}, "structured outputs"),
    ],
    ids=str,
)
def test_vllms_route_for_plain_prompts_refuses_them_too(
    server: Server, fields: dict[str, Any], reason: str
) -> None:
    request = {"model": "lisa", "prompt": "a <image> b", "max_tokens": 2, **fields}
    with server.client() as client:
        reply = client.post("/v1/completions", json=request)
    assert reply.status_code == 400
    assert reason in reply.text
