"""Keeps glibc from giving memory back to the kernel between layers.

Symptom: on a CPU a layer's activations are larger than what glibc keeps, so every layer takes its
memory from the kernel again, page by page, and much of the time goes there; how much shows
`python -m benchmarks.encode --encoders mobile_sam --allocators kept default`. A preloaded tcmalloc
or jemalloc, which vLLM recommends for CPUs, does the same and is left alone. Can go when vLLM's CPU
worker sets this or brings such an allocator.
"""

from __future__ import annotations

import ctypes
import platform

# <malloc.h>
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_MAX = -4

_MOST = (1 << 31) - 1
_STEP_BYTES = 64 << 20


def keep_freed_memory() -> bool:
    """Tell glibc to keep what is freed and to grow in steps of 64 MiB; idempotent.

    For the whole process. Returns whether the allocator is glibc's and took the settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _MOST), (_M_TOP_PAD, _STEP_BYTES))
    return all(libc.mallopt(name, value) == 1 for name, value in settings)
