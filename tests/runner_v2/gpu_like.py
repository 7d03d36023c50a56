"""An engine on a CPU that runs as one on a GPU: V2, Triton attention, captured decoding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from vllm.config import CompilationMode, CUDAGraphMode
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.attention import selector
from vllm.v1.attention.backends import triton_attn
from vllm.v1.attention.backends.registry import AttentionBackendEnum
from vllm.v1.worker.gpu import cudagraph_utils

from tests.runner_v2.recorded_graph import RecordedGraph, capturing

CAPTURE = {"cudagraph_capture_sizes": [1, 3]}


@contextmanager
def triton_attention() -> Iterator[None]:
    """vLLM's Triton kernels write the KV cache and attend, as layers that are no operator."""
    path = AttentionBackendEnum.TRITON_ATTN.get_path()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "get_attn_backend_cls", lambda *args, **kwargs: path)
        patch.setattr(CpuPlatform, "opaque_attention_op", lambda *args: False)
        # Asked for by the kernel that writes the cache, for its tile size.
        patch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
        # Each part of a row's softmax is a program of its own; 16 of them are for a GPU.
        patch.setattr(triton_attn, "NUM_PAR_SOFTMAX_SEGMENTS", 2)
        # Engines before and after these have the CPU's.
        selector._cached_get_attn_backend.cache_clear()
        yield
    selector._cached_get_attn_backend.cache_clear()


@contextmanager
def recorded_graphs() -> Iterator[None]:
    """A CPU that allows graphs, which are `RecordedGraph`s."""
    check = CpuPlatform.check_and_update_config

    def checked(platform: Any, vllm_config: Any) -> None:
        compilation = vllm_config.compilation_config
        sizes = compilation.cudagraph_capture_sizes
        check(vllm_config)
        compilation.cudagraph_capture_sizes = sizes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuPlatform, "check_and_update_config", checked)
        patch.setattr(CpuPlatform, "support_static_graph_mode", lambda *args: True)
        patch.setattr(CpuPlatform, "get_global_graph_pool", lambda *args: None, raising=False)
        patch.setattr(torch.cuda, "CUDAGraph", RecordedGraph)
        patch.setattr(torch.cuda, "graph", capturing)
        patch.setattr(cudagraph_utils, "graph_capture", lambda **_: nullcontext())
        patch.setattr(cudagraph_utils, "capture_pool", lambda *args: nullcontext())
        patch.setattr(cudagraph_utils, "current_stream", lambda: None)
        yield


def capture(runner: Any) -> dict[int, RecordedGraph]:
    """The graphs of a runner by size, made as at the start of an engine on a GPU."""
    manager = runner.cudagraph_manager
    assert manager.cudagraph_mode == CUDAGraphMode.FULL_DECODE_ONLY
    assert runner.vllm_config.compilation_config.mode == CompilationMode.NONE
    manager.capture(
        runner.model,
        runner.model_state,
        runner.input_buffers,
        None,
        runner.block_tables,
        runner.attn_groups,
        runner.kv_cache_config,
    )
    return {shape.num_tokens: graph for shape, graph in manager.graphs.items()}
