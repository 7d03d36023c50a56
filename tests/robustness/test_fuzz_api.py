"""Requests that Schemathesis makes of our OpenAPI, and good ones with something replaced."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

from tests.robustness.carried import picture_urls
from tests.robustness.case import CHAT, SECONDS, SEGMENT, Case, Reply, check
from tests.robustness.conftest import Golden
from tests.robustness.corpus.carriers import FINE_URL, chat_about, segment_about
from tests.robustness.json_values import mutated
from tests.server import Server

ANSWERED = frozenset({200, 400, 401, 404, 405, 406, 413, 415, 422})
MOST_TOKENS = 4

QUICK, MANY = 25, 400
COUNTS = [QUICK, pytest.param(MANY, marks=pytest.mark.slow)]


def fuzz(count: int) -> settings:
    """Other requests for other counts, the same ones every time."""
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def bounded(body: Any) -> Any:
    """Answers are kept short: what is tested is what is done with the request."""
    if isinstance(body, dict):
        for name in ("max_tokens", "max_completion_tokens", "min_tokens", "n"):
            value = body.get(name)
            if isinstance(value, (int, float)) and value > MOST_TOKENS:
                body[name] = MOST_TOKENS
        if "messages" in body:
            body.setdefault("max_tokens", MOST_TOKENS)
    return body


def checked(status: int, content: bytes, sent: object) -> None:
    """As for the written cases."""
    reply = Reply(status, content)
    try:
        check(Case("fuzzed", bytes, statuses=ANSWERED), reply)
    except Exception as error:
        raise AssertionError(f"{status}: {reply.text()}\nfor {sent!r:.2000}") from error


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    """OpenAPI of our routes alone."""
    with server.client() as client:
        whole: dict[str, Any] = client.get("/openapi.json").raise_for_status().json()
    whole["paths"] = {path: {"post": whole["paths"][path]["post"]} for path in (CHAT, SEGMENT)}
    return whole


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize("path", [SEGMENT, CHAT])
def test_requests_made_of_our_openapi(
    server: Server,
    unharmed: Golden,
    document: dict[str, Any],
    path: str,
    mode: GenerationMode,
    count: int,
) -> None:
    """Bodies of both kinds, headers, queries; by the schema, or against it at some place."""
    operation = schemathesis.openapi.from_dict(document)[path]["POST"]
    session = requests.Session()
    headers = {"Authorization": f"Bearer {server.key}"}

    @seed(0)
    @fuzz(count)
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case: schemathesis.Case) -> None:
        case.body = bounded(case.body)
        try:
            reply = case.call(
                base_url=server.url, session=session, headers=headers, timeout=SECONDS
            )
        except (ValueError, UnicodeError, requests.exceptions.InvalidHeader):
            return  # cannot be sent
        checked(reply.status_code, reply.content, case.body)

    run()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("path", [SEGMENT, CHAT])
def test_good_requests_with_something_replaced(
    server: Server, unharmed: Golden, path: str, count: int
) -> None:
    good = {SEGMENT: segment_about(FINE_URL), CHAT: chat_about(FINE_URL)}[path]
    more: dict[str, Any] = {"temperature": 0, "max_tokens": 2}
    if path == CHAT:
        more |= {"stop": ["a"], "logit_bias": {"5": 1}, "stream": False, "seed": 1, "top_p": 1.0}
        more["chat_template_kwargs"] = {"conv_template": "llava_v1"}
    documents = st.sampled_from([{**good, **more}, good])

    with server.client() as client:

        @seed(0)
        @fuzz(count)
        @given(documents.flatmap(mutated))
        def run(body: dict[str, Any]) -> None:
            content = json.dumps(bounded(body)).encode()
            headers = {"Content-Type": "application/json"}
            reply = client.post(path, content=content, headers=headers, timeout=SECONDS)
            checked(reply.status_code, reply.content, body)

        run()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("count", COUNTS)
def test_damaged_pictures(server: Server, unharmed: Golden, count: int) -> None:
    with server.client() as client:

        @seed(0)
        @fuzz(count)
        @given(picture_urls())
        def run(url: str) -> None:
            reply = client.post(SEGMENT, json=segment_about(url), timeout=SECONDS)
            checked(reply.status_code, reply.content, url)

        run()
