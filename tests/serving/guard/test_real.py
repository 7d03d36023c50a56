"""Limits, readiness, logs and spans of a real server."""

from __future__ import annotations

import base64
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest

from tests.server import wait_until
from tests.serving.guard.collector import Collector, Seen
from tests.serving.guard.real import Real, long_chat, picture
from tests.serving.guard.test_bodies import refused

LIMIT = 1 << 20
WORD = 18585
HELD = "vllm_csp:held_requests"
REFUSED = "vllm_csp:requests_refused_total"


def test_it_is_ready_when_it_has_made_a_mask(real: Real) -> None:
    assert real.metric("vllm_csp:probes_total", outcome="mask") >= 1
    assert real.state() == "ready"
    assert real.metric("vllm_csp:ready") == 1


def test_every_route_with_a_body_has_the_limit(real: Real) -> None:
    paths: dict[str, dict[str, Any]] = real.page("/openapi.json").json()["paths"]
    posts = [path for path, methods in paths.items() if "post" in methods]
    assert {"/v1/segment", "/v1/chat/completions", "/v1/completions", "/tokenize"} <= set(posts)
    for path in posts:
        before = real.metric(REFUSED, reason="body_too_large")
        filled = re.sub(r"\{[^}]*\}", "a", path)
        reply = httpx.post(real.url + filled, content=bytes(LIMIT + 1), timeout=30)
        refused(reply, 413)
        after = real.metric(REFUSED, reason="body_too_large")
        assert after == before + 1, path


def test_questions_beyond_the_limit_are_refused(real: Real) -> None:
    """A request is held until its answer has been sent, so each step waits for the one before."""

    def wait_until_held(count: int) -> None:
        wait_until(lambda: real.metric(HELD) == count, 60, f"{count} are in the making")

    before = real.metric(REFUSED, reason="queue_full")
    refused(real.segment(*["What?"] * 5, picture=picture()), 400)
    wait_until_held(0)
    with ThreadPoolExecutor(2) as pool:
        # No answer ends before its time, whatever the machine's pace.
        with real.stopped("Worker"):
            first = pool.submit(real.chat, long_chat(90))
            wait_until_held(1)
            reply = real.segment(*["What?"] * 4, picture=picture())
            assert "as many questions" in refused(reply, 503)["message"]
            assert reply.headers["retry-after"] == "1"
            wait_until_held(1)
            second = pool.submit(partial(real.segment, *["What?"] * 3, picture=picture()))
            wait_until_held(4)
        assert (first.result().status_code, second.result().status_code) == (200, 200)
    refused(real.chat({**long_chat(91), "n": 5, "temperature": 1}), 400)
    wait_until_held(0)
    assert real.metric(REFUSED, reason="queue_full") == before + 1


def test_a_flood_of_segs_has_as_many_masks_as_an_answer_may(real: Real) -> None:
    [choice] = real.chat(long_chat(92, 100)).json()["choices"]
    assert choice["message"]["content"].count("[SEG]") == 100
    assert len(choice["message"]["masks"]) == 32


@pytest.mark.parametrize("title", ["EngineCore", "Worker"])
def test_a_stuck_engine_is_noticed_and_so_is_its_return(real: Real, title: str) -> None:
    wait_until(lambda: real.state() == "ready", 60, "it is ready")
    with real.stopped(title):
        wait_until(lambda: real.state() == "stuck", 60, "it is stuck")
        assert real.status("/ready") == 503
        assert real.status("/health") == 200
        assert real.metric("vllm_csp:ready") == 0
    wait_until(lambda: real.state() == "ready", 60, "it is ready again")
    assert real.segment("What?", picture=picture()).status_code == 200


def test_a_server_that_stood_still_answers_what_came_meanwhile(real: Real) -> None:
    """On a connection that had been idle, for longer than the 5 s after which vLLM closes them.

    uvloop does that before it reads what has come.
    """
    kept = httpx.Limits(keepalive_expiry=None)
    with (
        httpx.Client(base_url=real.url, timeout=60, limits=kept) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        assert client.get("/health").status_code == 200
        time.sleep(3)
        with real.stopped():
            asked = pool.submit(client.get, "/health")
            time.sleep(3)
        assert asked.result().status_code == 200


def test_a_long_answer_is_no_reason_for_doubt(real: Real) -> None:
    """With a probe waiting behind it; test_readiness.py has the same without a machine's pace."""
    states: set[str] = set()
    with ThreadPoolExecutor(4) as pool:
        # Words: a hundred masks at once may take a busy machine longer than it may be silent.
        asked = [{**long_chat(100 + i, 300), "allowed_token_ids": [WORD]} for i in range(4)]
        busy = [pool.submit(real.chat, one) for one in asked]
        while not all(one.done() for one in busy):
            states.add(real.state())
            time.sleep(0.2)
    assert all(one.result().status_code == 200 for one in busy)
    assert states == {"ready"}


def lines_of(real: Real) -> list[dict[str, Any]]:
    return [json.loads(line) for line in real.out.read_text().splitlines()]


def line_of(real: Real, request_id: str) -> dict[str, Any]:
    """The line of a request, once it is there."""

    def found() -> list[dict[str, Any]]:
        lines = [one for one in lines_of(real) if one.get("event") == "request"]
        return [one for one in lines if one["request_id"] == request_id]

    wait_until(lambda: bool(found()), 10, f"a line of {request_id}")
    [line] = found()
    return line


def test_every_line_is_json_and_every_request_has_one(real: Real) -> None:
    answered = real.segment("What?", "Where?", picture=picture(), **{"X-Request-Id": "of-this"})
    assert answered.headers["x-request-id"] == "of-this"
    assert answered.json()["id"] == "seg-of-this"
    line = line_of(real, "of-this")
    assert line["path"] == "/v1/segment"
    assert (line["status"], line["questions"], line["masks"]) == (200, 2, 2)
    assert 0 < line["seconds"] < 120
    unnamed = real.chat(long_chat(80, 3, stream=True))
    assert line_of(real, unnamed.headers["x-request-id"])["questions"] == 1
    assert f"chatcmpl-{unnamed.headers['x-request-id']}" in unnamed.text


def test_who_goes_away_is_told_apart(real: Real) -> None:
    headers = {"X-Request-Id": "gone"}
    with real.stopped("Worker"), pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{real.url}/v1/chat/completions", json=long_chat(93), headers=headers, timeout=1
        )
    assert line_of(real, "gone")["aborted"]


def test_no_contents_are_logged(real: Real) -> None:
    secret = "What is the xylophone-of-this-test?"
    shown = picture(211)
    assert real.segment(secret, picture=shown).status_code == 200
    request = {"image": base64.b64encode(shown).decode(), "questions": [secret], "modes": secret}
    assert httpx.post(f"{real.url}/v1/segment", json=request).status_code == 400
    damaged = shown[:100]
    assert real.segment(secret, picture=damaged).status_code == 400
    chat = long_chat(211, 3)
    chat["messages"][0]["content"][1]["text"] = secret
    assert real.chat({**chat, "prompt_logprobs": 1}).status_code == 400
    assert real.chat(chat).status_code == 200
    written = real.out.read_text() + real.out.with_suffix(".err").read_text()
    assert "xylophone" not in written
    coded = base64.b64encode(shown).decode()
    for start in range(0, len(coded) - 40, 20):
        assert coded[start : start + 40] not in written


def traced(real: Real, collector: Collector, trace: str, *questions: str, width: int) -> list[Seen]:
    """The spans of a call, named by the trace that it is part of."""
    headers = {"traceparent": f"00-{trace}-{'ab' * 8}-01"}
    reply = real.segment(*questions, picture=picture(width), **headers)
    assert reply.status_code == 200

    def whole() -> bool:
        names = [one.name for one in collector.of_trace(trace)]
        made = {"POST /v1/segment", "vllm_csp.prefill", "vllm_csp.stage", "vllm_csp.mask_decode"}
        return made <= set(names) and names.count("llm_request") == len(questions)

    wait_until(whole, 20, "its spans have come")
    time.sleep(1)
    return collector.of_trace(trace)


def test_spans_of_a_call(real: Real, collector: Collector) -> None:
    spans = traced(real, collector, "5e" * 16, "What?", "Where?", width=123)
    named: dict[str, list[Seen]] = {}
    for one in spans:
        named.setdefault(one.name, []).append(one)
    [root] = named.pop("POST /v1/segment")
    assert root.parent == "ab" * 8
    assert root.attributes["vllm_csp.questions"] == root.attributes["vllm_csp.masks"] == 2
    assert root.attributes["http.response.status_code"] == 200
    assert set(named) == {
        "llm_request",
        "vllm_csp.encode_sam",
        "vllm_csp.encode_clip",
        "vllm_csp.prefill",
        "vllm_csp.stage",
        "vllm_csp.mask_decode",
    }
    for some in named.values():
        for one in some:
            assert one.parent == root.span
            assert root.start <= one.start <= one.end <= root.end
    assert {one.attributes["vllm_csp.stage"] for one in named["vllm_csp.stage"]} == {0, 1, 2}
    # What the two questions share is there once.
    assert len(named["vllm_csp.encode_sam"]) == 1
    [sam] = named["vllm_csp.encode_sam"]
    prefills = sorted(named["vllm_csp.prefill"], key=lambda one: one.start)
    assert len(named["vllm_csp.stage"]) == 3 * len(prefills)
    assert sam.end <= prefills[0].end
    assert prefills[0].end <= min(one.start for one in named["vllm_csp.mask_decode"])


def test_an_image_that_was_known_is_not_encoded_in_the_trace(
    real: Real, collector: Collector
) -> None:
    traced(real, collector, "5d" * 16, "What?", width=124)
    names = {one.name for one in traced(real, collector, "5c" * 16, "Where?", width=124)}
    assert "vllm_csp.mask_decode" in names
    assert not {"vllm_csp.encode_sam", "vllm_csp.encode_clip"} & names


def test_a_trace_that_nobody_keeps_has_no_spans(real: Real, collector: Collector) -> None:
    headers = {"traceparent": f"00-{'5b' * 16}-{'ab' * 8}-00"}
    assert real.segment("What?", picture=picture(125), **headers).status_code == 200
    time.sleep(2)
    assert collector.of_trace("5b" * 16) == []
