"""The request that is sent for a row."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from vllm_csp.serving.batch.row import Row, Subject
from vllm_csp.serving.client import chat_body


def with_url(body: dict[str, Any]) -> dict[str, Any]:
    return Row("a", 0, body, Subject(), "cat.png").body_with("data:,")


def test_only_the_address_of_the_first_image_changes() -> None:
    body = chat_body("cat.png", "Where?", history=[("What?", "A cat.")])
    body["messages"].insert(0, {"role": "system", "content": "Be brief."})
    body["messages"].append({"role": "user", "content": [part("dog.png"), part("cow.png")]})
    before = copy.deepcopy(body)
    sent = with_url(body)
    assert body == before
    assert sent["messages"][1]["content"][0]["image_url"] == {"url": "data:,"}
    sent["messages"][1]["content"][0]["image_url"]["url"] = "cat.png"
    assert sent == before


def test_what_stands_beside_the_address_stays() -> None:
    body = {"messages": [{"content": [part("cat.png", detail="high")]}]}
    assert with_url(body)["messages"][0]["content"] == [part("data:,", detail="high")]


@pytest.mark.parametrize("body", [{}, {"messages": 5}, {"messages": [{"content": [{}]}]}], ids=str)
def test_a_request_without_image_stays_what_it_is(body: dict[str, Any]) -> None:
    assert with_url(body) == body


def part(url: str, **fields: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url, **fields}}
