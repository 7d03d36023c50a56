"""What rows that several requests share rely on in vLLM's attention backends."""

from __future__ import annotations

from importlib import import_module

import pytest

from vllm_csp.kv.attention import staged_backend
from vllm_csp.models.staged_llama import READS_FROM_CACHE

BACKENDS = {
    "cpu_attn": "CPUAttentionBackend",
    "flash_attn": "FlashAttentionBackend",
    "flashinfer": "FlashInferBackend",
    "triton_attn": "TritonAttentionBackend",
}


@pytest.mark.parametrize("module", BACKENDS)
def test_keys_and_values_are_cached_apart_from_attention(module: str) -> None:
    backends = pytest.importorskip(f"vllm.v1.attention.backends.{module}", exc_type=ImportError)
    base = getattr(backends, BACKENDS[module])
    assert not base.forward_includes_kv_cache_update
    assert not staged_backend(base).forward_includes_kv_cache_update
    assert hasattr(base.get_impl_cls(), "do_kv_cache_update")
    assert staged_backend(base).get_name() in READS_FROM_CACHE


def test_the_flag_is_still_there() -> None:
    backend = import_module("vllm.v1.attention.backend").AttentionBackend
    assert backend.forward_includes_kv_cache_update is True
