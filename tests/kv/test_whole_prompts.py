"""On a CPU no prompt is split between steps: vLLM cannot rewind a CPU's random generators."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.overlap import iou
from tests.chat import body, question_body, user
from tests.kv.harness import IMAGE_TOKENS, Bench, engine_config, request
from tests.oracle import recording
from tests.pictures import data_url, encoded, gradient
from tests.server import Server
from vllm_csp.kv import whole_prompts

AT_ONCE = 32
DENSE: dict[str, Any] = {"policy": "dense"}
SPLITTING: dict[str, Any] = {
    "enable_chunked_prefill": True,
    "max_num_batched_tokens": 300,
    "long_prefill_token_threshold": 100,
    "max_num_scheduled_tokens": 200,
}


def sampled(number: int) -> dict[str, Any]:
    """A request with a seed; every fourth with a picture. A step has room for six or seven."""
    text = f"{number} is the number of this long question. " * 25
    pictures = [data_url(encoded(gradient(60 + number, 50)))] if number % 4 == 0 else []
    return body(user(text, *pictures), temperature=1.0, seed=number, max_tokens=6)


def text_of(server: Server, request: dict[str, Any]) -> str:
    reply = server.chat(request)
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["message"]["content"]


def test_32_seeded_requests_at_once_leave_the_engine_alive(server: Server) -> None:
    """Each is answered as it is alone, and a request afterwards as it was recorded."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        together = list(threads.map(lambda n: text_of(server, sampled(n)), range(AT_ONCE)))
    assert len(set(together)) > AT_ONCE / 2, "seeds and prompts differ"
    for number in (0, 11, 31):
        assert text_of(server, sampled(number)) == together[number]
    golden = recording("d01-answer")
    reply = server.chat(question_body(golden)).raise_for_status().json()
    message = reply["choices"][0]["message"]
    assert " ".join(message["content"].split()) == golden.text("fp32")
    for mask, expected in zip(message["masks"], golden.masks("fp32"), strict=True):
        assert iou(mask, expected) >= 0.999


@pytest.mark.parametrize("flags", [{}, SPLITTING], ids=["plain", "splitting"])
def test_dense_schedules_whole_prompts(
    folder: Callable[[int], Path], flags: dict[str, Any]
) -> None:
    """Under vLLM's own scheduler, also when more pictures come than a step had room for."""
    config = engine_config(folder(8), DENSE, max_num_seqs=64, **flags)
    assert config.scheduler_config.scheduler_cls is None
    bench = Bench(config, memory=4 << 30)
    # As long as a prompt may be, and one with more words before its picture than fit a step.
    lengths = {"longest": 1000 - IMAGE_TOKENS, "late": 600, **{f"r{n}": 40 for n in range(40)}}
    for name, text in lengths.items():
        bench.scheduler.add_request(request(name, text, name, before=text, max_tokens=3))
    prefilled = {}
    for _ in range(200):
        scheduled = bench.step()
        for new in scheduled.scheduled_new_reqs:
            prefilled[new.req_id] = scheduled.num_scheduled_tokens[new.req_id] - IMAGE_TOKENS
    assert prefilled == lengths
    assert not bench.scheduler.requests


def test_every_request_has_room_for_its_picture(folder: Callable[[int], Path]) -> None:
    """With cached words in front of it, a prompt may need few of a step's tokens and all of it."""
    config = engine_config(folder(8), DENSE, max_num_seqs=64, **SPLITTING)
    scheduler = Bench(config, memory=1 << 30).scheduler
    assert scheduler.max_num_encoder_input_tokens >= 64 * IMAGE_TOKENS
    assert scheduler.encoder_cache_manager.cache_size >= 64 * IMAGE_TOKENS


def test_the_log_says_so(folder: Callable[[int], Path], log: pytest.LogCaptureFixture) -> None:
    """Whether chunked prefill was asked for or is vLLM's default cannot be told."""
    engine_config(folder(8), DENSE, **SPLITTING)
    assert "chunked prefill is off: on a CPU, vLLM fails on a split prompt" in log.text
    assert "max_num_batched_tokens raised to 1024" in log.text


def test_elsewhere_dense_keeps_vllms_choices(
    folder: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU's generators can be rewound."""
    gpu = SimpleNamespace(is_cpu=lambda: False)
    monkeypatch.setattr(whole_prompts, "current_platform", gpu)
    scheduler = engine_config(folder(8), DENSE, **SPLITTING).scheduler_config
    for name, value in SPLITTING.items():
        assert getattr(scheduler, name) == value
    assert scheduler.max_num_encoder_input_tokens == scheduler.encoder_cache_size == 300
