"""What stages cannot run with stops the start, with the reason and the fix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from vllm.config import CompilationMode, CUDAGraphMode, KVTransferConfig
from vllm.platforms.cpu import CpuPlatform

from tests.kv.harness import engine_config

CSP: dict[str, Any] = {"policy": "csp"}
CONNECTOR = {"kv_connector": "ExampleConnector", "kv_role": "kv_both"}
# Engine arguments, words of the reason, words of the fix.
REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "hybrid-manager-off": (
        {"disable_hybrid_kv_cache_manager": True},
        "--disable-hybrid-kv-cache-manager folds all stages into one KV layout",
        "leave it out",
    ),
    "kv-connector": (
        {"kv_transfer_config": KVTransferConfig(**CONNECTOR)},
        "--kv-transfer-config) moves blocks by token position",
        "leave it out",
    ),
    "kv-offloading": (
        {"kv_offloading_size": 1.0},
        "--kv-offloading-size moves KV blocks by token position",
        "leave it out",
    ),
    "decode-context-parallel": (
        {"decode_context_parallel_size": 2, "tensor_parallel_size": 2},
        "--decode-context-parallel-size splits a request's KV by position",
        "set it to 1",
    ),
    "prefill-context-parallel": (
        {"prefill_context_parallel_size": 2},
        "--prefill-context-parallel-size splits a prompt over ranks",
        "set it to 1",
    ),
    "speculative": (
        {
            "speculative_config": {
                "method": "ngram",
                "num_speculative_tokens": 2,
                "prompt_lookup_max": 3,
            }
        },
        "one row per request and step",
        "leave --speculative-config out",
    ),
    "own-scheduler": (
        {"scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"},
        "stages bring their own scheduler",
        "--scheduler-cls must be left out",
    ),
    "pipeline-parallel": (
        {"pipeline_parallel_size": 2},
        "pipeline parallelism is not supported",
        "Use --tensor-parallel-size",
    ),
}


@pytest.mark.parametrize(("flags", "reason", "fix"), REFUSED.values(), ids=REFUSED)
def test_refused(
    folder: Callable[[int], Path], flags: dict[str, Any], reason: str, fix: str
) -> None:
    with pytest.raises(ValueError) as refusal:
        engine_config(folder(8), CSP, **flags)
    assert reason in str(refusal.value)
    assert fix in str(refusal.value)


@pytest.mark.parametrize("name", ["hybrid-manager-off", "own-scheduler"])
def test_dense_runs_with_it(folder: Callable[[int], Path], name: str) -> None:
    """The refusal is about stages."""
    config = engine_config(folder(8), {"policy": "dense"}, **REFUSED[name][0])
    assert config.model_config.max_model_len == 1024


def test_no_policy_runs_with_speculative_decoding(folder: Callable[[int], Path]) -> None:
    flags, reason, _ = REFUSED["speculative"]
    with pytest.raises(ValueError, match=reason):
        engine_config(folder(8), {"policy": "dense"}, **flags)


@pytest.mark.parametrize(
    ("csp", "words"),
    [
        ({"policy": "fastv", "layer": 9}, "decoder has 8"),
        ({"policy": "csp", "prune_tokens": 300}, "keeps 300 of 256 image tokens: lower its budget"),
        ({"policy": "csp", "cluster_tokns": 3}, "cluster_tokns"),
        ({"policy": "cps"}, "choose one of dense, csp"),
    ],
    ids=str,
)
def test_schedules_that_do_not_fit(
    folder: Callable[[int], Path], csp: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError) as refusal:
        engine_config(folder(8), csp)
    assert words in str(refusal.value)


def test_what_stages_need_is_set(
    folder: Callable[[int], Path], log: pytest.LogCaptureFixture
) -> None:
    """Whatever was asked for: prompts in one step, no sharing of blocks, nothing compiled."""
    config = engine_config(
        folder(8),
        CSP,
        enable_chunked_prefill=True,
        enable_prefix_caching=True,
        max_num_batched_tokens=256,
        long_prefill_token_threshold=100,
        max_num_scheduled_tokens=200,
    )
    scheduler = config.scheduler_config
    assert scheduler.scheduler_cls == "vllm_csp.kv.scheduler.StageScheduler"
    assert not scheduler.enable_chunked_prefill
    assert scheduler.max_num_batched_tokens >= 1024
    assert scheduler.max_num_scheduled_tokens in (None, scheduler.max_num_batched_tokens)
    assert scheduler.long_prefill_token_threshold == 0
    assert not config.cache_config.enable_prefix_caching
    assert "prefix caching is off: stages keep different tokens" in log.text
    assert config.compilation_config.mode == CompilationMode.NONE


CAPTURED = CUDAGraphMode.FULL_DECODE_ONLY
GRAPHS: dict[str, tuple[dict[str, Any], str, CUDAGraphMode]] = {
    "by-default": ({}, "1", CAPTURED),
    "of-all-steps": ({"compilation_config": {"cudagraph_mode": "FULL"}}, "1", CAPTURED),
    "of-pieces": ({"compilation_config": {"cudagraph_mode": "PIECEWISE"}}, "1", CUDAGraphMode.NONE),
    "none": ({"compilation_config": {"cudagraph_mode": "NONE"}}, "1", CUDAGraphMode.NONE),
    "level-1": ({"optimization_level": 1}, "1", CUDAGraphMode.NONE),
    "level-0": ({"optimization_level": 0}, "1", CUDAGraphMode.NONE),
    "eager": ({"enforce_eager": True}, "1", CUDAGraphMode.NONE),
    "runner-v1": ({}, "0", CUDAGraphMode.NONE),
}


@pytest.mark.parametrize(("flags", "v2", "mode"), GRAPHS.values(), ids=GRAPHS)
def test_only_decoding_is_captured(
    folder: Callable[[int], Path],
    flags: dict[str, Any],
    v2: str,
    mode: CUDAGraphMode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where vLLM would capture it and the platform can; how it runs: `tests/runner_v2/`."""
    monkeypatch.setenv("VLLM_USE_V2_MODEL_RUNNER", v2)
    # vLLM asks for Triton before it lets V2 be chosen; nothing is run here.
    monkeypatch.setattr("vllm.config.vllm.HAS_TRITON", True)
    monkeypatch.setattr(CpuPlatform, "support_static_graph_mode", lambda *args: True)
    config = engine_config(folder(8), CSP, **flags)
    assert config.compilation_config.cudagraph_mode == mode
    assert config.compilation_config.mode == CompilationMode.NONE


def test_dense_keeps_prefix_caching(folder: Callable[[int], Path]) -> None:
    """The rest of vLLM's choices: `test_whole_prompts.py`."""
    config = engine_config(folder(8), {"policy": "dense"}, enable_prefix_caching=True)
    assert config.scheduler_config.scheduler_cls is None
    assert config.cache_config.enable_prefix_caching


def test_many_groups_are_warned_of(
    folder: Callable[[int], Path], log: pytest.LogCaptureFixture
) -> None:
    """FastV's K = 2 of 32 layers; the cheap default schedule is not."""
    engine_config(folder(32), CSP)
    assert "KV-cache groups" not in log.text
    engine_config(folder(32), {"policy": "fastv"})
    assert "stages of 2/30 layers make 16 KV-cache groups" in log.text
