"""The official client, as the README shows it."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from benchmarks.overlap import iou
from tests.chat import MODEL, user
from tests.oracle import recording
from tests.pictures import data_url
from tests.server import Server


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.key, max_retries=0) as client:
        yield client


@pytest.fixture
def messages() -> list:
    one = recording("d04-answer")
    return [user(one.question_text, data_url(one.image_file.read_bytes(), "jpeg"))]


def test_masks_are_fields_of_the_message(client: openai.OpenAI, messages: list) -> None:
    reply = client.chat.completions.create(model=MODEL, messages=messages, temperature=0)
    found = reply.choices[0].message.model_extra
    assert found is not None
    for mask, reference in zip(found["masks"], recording("d04-answer").masks("fp32"), strict=True):
        assert iou(mask, reference) >= 0.999


def test_options_go_into_extra_body(client: openai.OpenAI, messages: list) -> None:
    reply = client.chat.completions.create(
        model=MODEL,
        messages=messages,
        extra_body={"segmentation": {"mode": "force", "mask_format": "png"}},
    )
    assert reply.choices[0].message.content == "[SEG]."
    assert reply.usage is not None and reply.usage.completion_tokens == 1
    [mask] = reply.choices[0].message.model_extra["masks"]
    assert mask["png"].startswith("data:image/png;base64,")


def test_a_stream_ends_with_masks(client: openai.OpenAI, messages: list) -> None:
    found = []
    with client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, stream=True
    ) as chunks:
        for chunk in chunks:
            extra = chunk.choices[0].delta.model_extra or {}
            found += extra.get("masks", [])
    assert len(found) == 2


def test_errors_are_the_clients_own(client: openai.OpenAI, messages: list) -> None:
    with pytest.raises(openai.BadRequestError, match="segmentation"):
        client.chat.completions.create(
            model=MODEL, messages=messages, extra_body={"segmentation": {"mod": "force"}}
        )
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.chat.completions.create(model="another", messages=messages)


def test_a_wrong_key_is_refused(server: Server, messages: list) -> None:
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.chat.completions.create(model=MODEL, messages=messages)
