"""Keeps vLLM from choosing a precision for which this CPU has no instructions.

Symptom: vLLM holds that every x86 CPU computes in bf16 and fp16. Without AVX-512 oneDNN does not,
torch multiplies value by value, which is many times slower than fp32 (benchmarks/LOG.md). Can go
when `CpuPlatform.supported_dtypes` looks at the CPU.
"""

from __future__ import annotations

from typing import Any

import torch


def offer_fast_dtypes_only() -> None:
    """Let `--dtype auto` choose among what this CPU computes in; a precision that is named stays.

    To be called before vLLM chooses; a second call changes nothing. vLLM logs what it chose.
    """
    from vllm.platforms import current_platform

    platform: Any = type(current_platform)
    if not current_platform.is_cpu() or hasattr(platform, "all_dtypes"):
        return
    platform.all_dtypes = platform.supported_dtypes
    platform.supported_dtypes = property(
        lambda self: [dtype for dtype in self.all_dtypes if has_instructions(dtype)]
    )


def warn_of_slow_dtype(dtype: torch.dtype) -> None:
    """Say in vLLM's log what a named precision costs on this CPU."""
    from vllm.logger import init_logger

    if not has_instructions(dtype):
        init_logger(f"vllm.plugins.{__name__}").warning(
            "This CPU has no instructions for %s: answers take many times as long as with "
            "--dtype float32, which needs twice the memory.",
            str(dtype).removeprefix("torch."),
        )


def has_instructions(dtype: torch.dtype) -> bool:
    """Whether oneDNN multiplies in this precision on this CPU."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return True
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return True
